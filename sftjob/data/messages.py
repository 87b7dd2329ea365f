"""What every data source becomes: ChatML messages that remember where they were written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

Role = Literal["system", "user", "assistant", "tool"]
ROLES: Final[tuple[str, ...]] = get_args(Role)
Tool = Mapping[str, Any]
"""A function that the assistant may call, in the form of transformers: `{type: function, function: {…}}`."""


@dataclass(frozen=True)
class ToolCall:
    """The assistant asks for a function's result."""

    name: str
    arguments: Mapping[str, Any]
    """A JSON object."""
    id: str | None = None


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    """Empty only where the assistant calls tools instead of speaking."""
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning_content: str = ""
    """What the assistant thought before it spoke, for models whose template shows thoughts."""
    name: str | None = None
    """Of the tool that answers."""
    tool_call_id: str | None = None
    """Of the call that a tool answers."""
    train: bool | None = None
    """The row's own word on whether this turn is trained; None leaves it to `train_on`."""


@dataclass(frozen=True)
class Row:
    """One conversation, or one plain text, and its place in a file."""

    messages: tuple[Message, ...]
    file: str
    """What a person calls the file."""
    line: int
    """1-based physical line on which the row starts; in Parquet and Arrow files the row's number."""
    index: int | None = None
    """0-based place in a JSON array; None for JSON Lines, where the line says all."""
    tools: tuple[Tool, ...] = ()
    """Functions that the assistant may call."""
    text: str | None = None
    """A plain text, which no template touches; `messages` is empty then."""
    left_out: int = 0
    """Messages of the source row that are not in this one: alternatives in a tree."""
    copy: int = 0
    """Which repetition of the row in a mix."""
    part: int | None = None
    """Which of several rows that one row of the file became; None where it became one."""

    @property
    def id(self) -> str:
        """Unique within its file: `test.jsonl:12`, or `test.json:1[11]` for an array, `…#1` for a part of a row."""
        place = f"{self.file}:{self.line}" if self.index is None else f"{self.file}:{self.line}[{self.index}]"
        return place if self.part is None else f"{place}#{self.part}"

    def field(self, name: str) -> str:
        """The dotted path of a field of this row, as error messages name it."""
        return row_field(self.index, name)

    def up_to(self, count: int, *, part: int) -> "Row":
        """The first `count` messages as a row of their own."""
        return replace(self, messages=self.messages[:count], part=part)


def row_field(index: int | None, name: str) -> str:
    """`messages.2.role`, or `[16].messages.2.role` for the 17th row of a JSON array."""
    if index is None:
        return name
    return f"[{index}].{name}" if name else f"[{index}]"


def as_dicts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The shape that chat templates and JSON files take: `role`, `content` and those other fields that are set."""
    return [_as_dict(message) for message in messages]


def from_dict(value: Mapping[str, Any]) -> Message:
    """The inverse of `as_dicts`, for what this program wrote itself."""
    calls = (ToolCall(**call["function"], id=call.get("id")) for call in value.get("tool_calls", ()))
    return Message(**{**value, "tool_calls": tuple(calls)})


def _as_dict(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = {"role": message.role, "content": message.content}
    for key in ("reasoning_content", "name", "tool_call_id"):
        if written := getattr(message, key):
            value[key] = written
    if message.tool_calls:
        value["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.train is not None:
        value["train"] = message.train
    return value


def _call(call: ToolCall) -> dict[str, Any]:
    value: dict[str, Any] = {
        "type": "function",
        "function": {"name": call.name, "arguments": dict(call.arguments)},
    }
    return value if call.id is None else {**value, "id": call.id}
