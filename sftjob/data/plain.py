"""Conversations as plain text, for base models that have never seen a chat template.

Under its new template a base model's loss says nothing: it has never seen these tokens. Role names and text are a
format that both the base and the tuned model can read, so their scores can be set side by side.
"""

from collections.abc import Sequence
from typing import Final

from sftjob.data.masks import IGNORED, Encoded
from sftjob.data.messages import Message
from sftjob.data.tokenizer import ChatTokenizer

_NAMES: Final = {"system": "System", "user": "User", "assistant": "Assistant"}


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
    bos = [tokenizer.token_id(tokenizer.special_tokens["bos_token"])] if tokenizer.adds_bos else []
    return bos + tokenizer.encode(prompt)


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
    return Encoded(
        input_ids=ids[:max_length],
        labels=([IGNORED] * len(prompt_ids) + answer_ids)[:max_length],
        truncated=len(ids) > max_length,
    )
