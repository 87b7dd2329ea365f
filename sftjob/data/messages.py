"""What every data source becomes: ChatML messages that remember where they were written."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

Role = Literal["system", "user", "assistant"]
ROLES: Final[tuple[str, ...]] = get_args(Role)


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Row:
    """One conversation and its place in a file."""

    messages: tuple[Message, ...]
    file: str
    """What a person calls the file."""
    line: int
    """1-based physical line on which the row starts."""
    index: int | None = None
    """0-based place in a JSON array; None for JSON Lines, where the line says all."""

    @property
    def id(self) -> str:
        """Unique within its file: `test.jsonl:12`, or `test.json:1[11]` for an array."""
        return f"{self.file}:{self.line}" if self.index is None else f"{self.file}:{self.line}[{self.index}]"

    def field(self, name: str) -> str:
        """The dotted path of a field of this row, as error messages name it."""
        return row_field(self.index, name)


def row_field(index: int | None, name: str) -> str:
    """`messages.2.role`, or `[16].messages.2.role` for the 17th row of a JSON array."""
    if index is None:
        return name
    return f"[{index}].{name}" if name else f"[{index}]"


def as_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The shape that chat templates and JSON files take: `role` and `content`."""
    return [{"role": message.role, "content": message.content} for message in messages]
