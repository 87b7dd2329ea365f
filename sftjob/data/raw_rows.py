"""What every reader of data files yields: a row before anyone has looked at its fields, or what is wrong with it."""

from dataclasses import dataclass
from typing import Final

from sftjob.errors import Problem

JsonObject = dict[str, object]
MAX_ROW_BYTES: Final = 8 * 2**20
"""A longer row is a broken file (a missing line break), not text to train on."""
TOO_LONG: Final = f"longer than {MAX_ROW_BYTES // 2**20} MiB"


@dataclass(frozen=True)
class RawRow:
    """A row before anyone has looked at its fields, or what is wrong with it."""

    line: int
    """1-based physical line on which it starts; in Parquet and Arrow files its number."""
    index: int | None
    """0-based place in a JSON array; None for everything else."""
    value: JsonObject | Problem
    fatal: bool = False
    """The rest of the file is lost with it, so that nobody can say how many rows are."""


class BrokenFile(ValueError):
    """The rest of the file cannot be read. The message says why, and quotes nothing."""

    def __init__(self, reason: str, *, line: int = 0, field: str = "", hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
        self.field = field
        self.hint = hint


def broken(name: str, line: int, reason: str, field: str = "", *, hint: str = "") -> RawRow:
    """The end of a file that cannot be read on; line 0 where no line can be named."""
    return RawRow(line, None, Problem(file=name, line=line, field=field, reason=reason, hint=hint), fatal=True)


def json_type(value: object) -> str:
    """What JSON calls the type of a value, with its article, for messages that must not show the value."""
    for types, word in _JSON_TYPES:
        if isinstance(value, types):
            return word
    return "null"


_JSON_TYPES: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (str, "a string"),
    (bool, "a boolean"),
    ((int, float), "a number"),
    (list, "a list"),
    (dict, "an object"),
)
