"""What models are asked: held-out rows without their last answer, and a person's own prompts. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sftjob.data.messages import Message, Tool
from sftjob.data.plain import encode_plain_prompt
from sftjob.data.template import TemplateRefusal
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import DataError, SpecError

PromptFormat = Literal["template", "plain"]
_NEXT_TURNS = ("\nUser:", "\nSystem:", "\nAssistant:")
"""Where a base model under the plain format ends its answer by going on with the conversation by itself."""


@dataclass(frozen=True)
class HeldOutRow:
    """One line of eval_rows.jsonl."""

    id: str
    messages: tuple[Message, ...]
    """The last one is the assistant's; none for a plain text."""
    tools: tuple[Tool, ...] = ()
    text: str | None = None
    """A plain text, which is scored and not asked."""


@dataclass(frozen=True)
class Question:
    id: str
    messages: tuple[Message, ...]
    """Everything before the answer."""
    reference: str | None = None
    tools: tuple[Tool, ...] = ()

    @property
    def text(self) -> str:
        """The prompt as a person reads it; roles are named where there is more than one message."""
        if len(self.messages) == 1:
            return self.messages[0].content
        return "\n\n".join(f"{message.role}: {message.content}" for message in self.messages)


def questions(prompts: Sequence[str], rows: Sequence[HeldOutRow]) -> tuple[Question, ...]:
    """A person's prompts first, then rows, whose last message becomes the reference.

    A row without a question goes, and one whose answer is the call of a tool: there is no text to compare.
    """
    asked = [Question(f"prompt {number}", (Message("user", text),)) for number, text in enumerate(prompts, start=1)]
    held_out = (
        Question(row.id, row.messages[:-1], row.messages[-1].content, row.tools)
        for row in rows
        if len(row.messages) > 1 and not row.messages[-1].tool_calls
    )
    return (*asked, *held_out)


def check_prompts(tokenizer: ChatTokenizer, prompts: Sequence[str]) -> None:
    """Passes when the template takes every prompt and none holds a control token, which would become a real one.

    Raises:
        SpecError: `field` names the prompt.
    """
    for index, prompt in enumerate(prompts):
        field = f"evaluation.generation.prompts.{index}"
        control = next((text for text in tokenizer.special_texts if text in prompt), None)
        if control:
            raise SpecError(
                f"contains the tokenizer's control token {control}", field=field, hint="remove it or spell it otherwise"
            )
        try:
            tokenizer.render((Message("user", prompt),), add_generation_prompt=True)
        except TemplateRefusal as error:
            raise SpecError(f"the chat template refuses it: {error}", field=field, hint="change the prompt") from error


def prompt_ids(tokenizer: ChatTokenizer, question: Question, prompt_format: PromptFormat) -> list[int]:
    """Token ids up to where the answer begins.

    Raises:
        DataError: the template refuses the question; `file` names it.
    """
    if prompt_format == "plain":
        return encode_plain_prompt(tokenizer, question.messages)
    try:
        return tokenizer.encode(tokenizer.render(question.messages, tools=question.tools, add_generation_prompt=True))
    except TemplateRefusal as error:
        raise DataError(
            f"the chat template refuses it as a prompt: {error}", file=question.id, hint="set data.template: chatml"
        ) from error


def stop_token_ids(tokenizer: ChatTokenizer, prompt_format: PromptFormat) -> tuple[int, ...]:
    """Tokens that end an answer."""
    if prompt_format == "plain":
        return tuple(dict.fromkeys((tokenizer.plain_eos_token_id, *tokenizer.stop_token_ids)))
    return tokenizer.stop_token_ids


def answer_text(tokenizer: ChatTokenizer, ids: Sequence[int], prompt_format: PromptFormat) -> str:
    """Generated ids as text, without control tokens; under the plain format cut where the next turn begins."""
    text = tokenizer.decode(ids, skip_special_tokens=True)
    if prompt_format == "plain":
        text = text[: min((at for at in map(text.find, _NEXT_TURNS) if at >= 0), default=len(text))]
    return text.strip()
