"""Conversations as plain text, for base models that have never seen a chat template, and texts that are none.

Under its new template a base model's loss says nothing: it has never seen these tokens. Role names and text are a
format that both the base and the tuned model can read, so their scores can be set side by side.
"""

from collections.abc import Sequence
from typing import Final

from sftjob.data.encoded import IGNORED, Encoded, TrainedSpan
from sftjob.data.lengths import fit_length
from sftjob.data.messages import Message
from sftjob.data.tokenizer import ChatTokenizer

_NAMES: Final = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


def render_plain(messages: Sequence[Message]) -> tuple[str, str]:
    r"""The prompt and the last answer of a conversation as plain text.

    Returns:
        prompt_text: `User: …\n\nAssistant:`, all turns before the last answer included.
        answer_text: The last answer with the space that leads it, so that no token straddles the two; empty when the
            last turn is not the assistant's.
    """
    answered = bool(messages) and messages[-1].role == "assistant"
    before = messages[:-1] if answered else messages
    turns = [f"{_NAMES[message.role]}: {message.content}" for message in before]
    prompt = "\n\n".join([*turns, f"{_NAMES['assistant']}:"])
    return prompt, f" {messages[-1].content}" if answered else ""


def encode_plain_prompt(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """Token ids of the prompt alone, from which a model continues with the answer."""
    prompt, _ = render_plain(messages)
    return _bos(tokenizer) + tokenizer.encode(prompt)


def encode_plain(tokenizer: ChatTokenizer, messages: Sequence[Message], max_length: int) -> Encoded:
    """Ids and labels of the plain text; trained are the last answer and the base model's end token.

    Args:
        tokenizer: Tokenizer; its template is not used.
        messages: A conversation that ends with the assistant's turn.
        max_length: Tokens after which the row is cut off.
    """
    _, answer = render_plain(messages)
    prompt_ids = encode_plain_prompt(tokenizer, messages)
    answer_ids = [*tokenizer.encode(answer), tokenizer.plain_eos_token_id]
    ids = prompt_ids + answer_ids
    span = TrainedSpan(len(prompt_ids), len(ids), "assistant", stop=True)
    whole = Encoded(input_ids=ids, labels=[IGNORED] * len(prompt_ids) + answer_ids, spans=(span,))
    [encoded] = fit_length(whole, max_length, "truncate")
    return encoded


def encode_text(tokenizer: ChatTokenizer, text: str) -> Encoded:
    """Ids and labels of a plain text between the tokens that began and ended a text in the base model's pre-training.

    A text that was rendered already may hold control tokens, the first and the last included: those are not doubled.
    All tokens are trained but the first.
    """
    return label_text(tokenizer, tokenizer.encode(trim_text(tokenizer, text)))


def trim_text(tokenizer: ChatTokenizer, text: str) -> str:
    """Takes away blanks after the end token, where a text has one."""
    trimmed = text.rstrip()
    return trimmed if trimmed.endswith(tokenizer.plain_eos_token) else text


def label_text(tokenizer: ChatTokenizer, ids: Sequence[int]) -> Encoded:
    """As `encode_text`, from the ids of the trimmed text."""
    first = _bos(tokenizer) if not ids or [ids[0]] != _bos(tokenizer) else []
    last = [tokenizer.plain_eos_token_id] if not ids or ids[-1] != tokenizer.plain_eos_token_id else []
    whole = [*first, *ids, *last]
    spans = (TrainedSpan(1, len(whole), "text", stop=True),) if len(whole) > 1 else ()
    return Encoded(input_ids=whole, labels=[IGNORED, *whole[1:]], spans=spans)


def _bos(tokenizer: ChatTokenizer) -> list[int]:
    return [tokenizer.token_id(tokenizer.special_tokens["bos_token"])] if tokenizer.adds_bos else []
