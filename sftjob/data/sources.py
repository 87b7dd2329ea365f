"""Local files → JSON objects with the physical line on which each one starts.

JSON Lines is read line by line, so a file may be larger than memory; a JSON array has to be read whole. Which of the
two a file is follows from its first character, not from its name. A byte order mark is refused: other readers of the
same file would trip over it. No message quotes a row.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from sftjob.data.messages import row_field
from sftjob.data.problems import Problems
from sftjob.errors import InputMissing, Problem

JsonObject = dict[str, object]
MAX_ROW_BYTES: Final = 8 * 2**20
"""A longer row is a broken file (a missing line break), not text to train on."""
MAX_ARRAY_BYTES: Final = 512 * 2**20

_BLANK: Final = b" \t\r\n"
_BLANKS: Final = re.compile(r"[ \t\r\n]*")
_BYTE_ORDER_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_ONE_A_LINE: Final = "write one JSON object a line, or one JSON array of objects"


@dataclass(frozen=True)
class RawRow:
    """A row before anyone has looked at its fields, or what is wrong with it."""

    line: int
    """1-based physical line on which it starts."""
    index: int | None
    """0-based place in a JSON array; None for JSON Lines."""
    value: JsonObject | Problem
    fatal: bool = False
    """The rest of the file is lost with it, so that nobody can say how many rows are."""


def read_rows(path: Path, *, name: str) -> Iterator[tuple[int, JsonObject]]:
    """Yields the physical line and the object of each row; blank lines are skipped.

    Args:
        path: The file.
        name: What a person calls the file, for messages.

    Raises:
        DataError: at the end, all broken rows of the file: not JSON, not an object, not UTF-8, NUL, too long, no rows.
        InputMissing: the file is not there or cannot be read.
    """
    problems = Problems()
    for row in scan_rows(path, name=name):
        if not isinstance(row.value, Problem):
            yield row.line, row.value
        elif row.fatal:
            problems.add_fatal(row.value)
        else:
            problems.add_row([row.value])
    problems.raise_any()


def scan_rows(path: Path, *, name: str) -> Iterator[RawRow]:
    """As `read_rows`, but broken rows are yielded too, for callers that have more to report.

    Raises:
        InputMissing: the file is not there or cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield from _scan(file, name)
    except FileNotFoundError as error:
        raise InputMissing("no such file", file=name, hint="check the path") from error
    except IsADirectoryError as error:
        raise InputMissing("is a folder", file=name, hint="name a JSON Lines file in it") from error
    except PermissionError as error:
        raise InputMissing("may not be read", file=name, hint="check the file's permissions") from error


def _scan(file: BinaryIO, name: str) -> Iterator[RawRow]:
    if file.read(3).startswith(_BYTE_ORDER_MARKS):
        yield _broken(name, 1, "starts with a byte order mark", hint="save the file as UTF-8 without one")
        return
    file.seek(0)
    first = _first_character(file)
    file.seek(0)
    if not first:
        yield _broken(name, 0, "no rows", hint=_ONE_A_LINE)
        return
    yield from _scan_array(file, name) if first == b"[" else _scan_lines(file, name)


def _first_character(file: BinaryIO) -> bytes:
    while chunk := file.read(2**16):
        if text := chunk.lstrip(_BLANK):
            return text[:1]
    return b""


def _scan_lines(file: BinaryIO, name: str) -> Iterator[RawRow]:
    number = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            _skip_to_line_end(file, line)
            reason = f"longer than {MAX_ROW_BYTES // 2**20} MiB"
            yield RawRow(
                number, None, Problem(file=name, line=number, reason=reason, hint="look for a lost line break")
            )
        elif line.strip(_BLANK):
            yield RawRow(number, None, _parse_line(line, name, number))


def _skip_to_line_end(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_ROW_BYTES)


def _parse_line(line: bytes, name: str, number: int) -> JsonObject | Problem:
    try:
        text = _decode(line)
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return Problem(file=name, line=number, reason=f"not JSON: {error.msg} (column {error.colno})", hint=_ONE_A_LINE)
    except (_Refused, RecursionError) as error:
        return Problem(file=name, line=number, reason=_reason(error))
    return _object(value, name, number, None)


def _scan_array(file: BinaryIO, name: str) -> Iterator[RawRow]:
    if os.fstat(file.fileno()).st_size > MAX_ARRAY_BYTES:
        yield _broken(
            name, 0, f"a JSON array of more than {MAX_ARRAY_BYTES // 2**20} MiB", hint="write one JSON object a line"
        )
        return
    data = file.read()
    try:
        text = _decode(data)
    except _Refused as error:
        yield _broken(name, data.count(b"\n", 0, error.position) + 1, str(error))
        return
    yield from _scan_elements(text, name)


def _scan_elements(text: str, name: str) -> Iterator[RawRow]:
    """Walks over the elements of an array; the first mistake in its syntax ends the walk, for want of a way back in."""
    position = _skip_blanks(text, text.index("[") + 1)
    if text.startswith("]", position):
        yield _broken(name, 0, "no rows", hint="the JSON array is empty")
        return
    line, counted, index, closed = 1, 0, 0, False
    while not closed:
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, end = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            reason = f"not JSON: {error.msg} (column {error.colno})"
            yield _broken(name, error.lineno, reason, row_field(index, ""))
            return
        except (_Refused, RecursionError) as error:
            yield _broken(name, line, _reason(error), row_field(index, ""))
            return
        yield RawRow(line, index, _element(value, end - position, name, line, index))
        position, index = _skip_blanks(text, end), index + 1
        closed = text.startswith("]", position)
        if not closed and not text.startswith(",", position):
            yield _broken(name, text.count("\n", 0, position) + 1, "not JSON: neither `,` nor `]` after a row")
            return
        position = _skip_blanks(text, position + 1)
    if position < len(text):
        yield _broken(name, text.count("\n", 0, position) + 1, "not JSON: text after the array")


def _element(value: object, length: int, name: str, line: int, index: int) -> JsonObject | Problem:
    if length > MAX_ROW_BYTES:
        reason = f"longer than {MAX_ROW_BYTES // 2**20} MiB"
        return Problem(file=name, line=line, field=row_field(index, ""), reason=reason)
    return _object(value, name, line, index)


def _object(value: object, name: str, line: int, index: int | None) -> JsonObject | Problem:
    if isinstance(value, dict):
        return value
    reason = f"a row must be a JSON object, not {json_type(value)}"
    return Problem(file=name, line=line, field=row_field(index, ""), reason=reason, hint=_ONE_A_LINE)


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


class _Refused(ValueError):
    """What Python's JSON reader lets through and we do not. `position` is a byte offset."""

    def __init__(self, reason: str, position: int = 0) -> None:
        super().__init__(reason)
        self.position = position


def _decode(data: bytes) -> str:
    if (position := data.find(b"\x00")) >= 0:
        raise _Refused("contains a NUL byte", position)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _Refused(f"not UTF-8: {error.reason} (byte {_column(data, error.start)})", error.start) from error


def _column(data: bytes, position: int) -> int:
    return position - data.rfind(b"\n", 0, position)


def _reason(error: _Refused | RecursionError) -> str:
    return str(error) if isinstance(error, _Refused) else "nested too deeply"


def _unique(pairs: list[tuple[str, object]]) -> JsonObject:
    """Python keeps the last of two equal keys in silence; text would be lost."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _Refused("the same key twice in one object")
    return value


def _no_constant(name: str) -> object:
    raise _Refused(f"not JSON: {name}")


def _integer(digits: str) -> int:
    if len(digits) > 400:
        raise _Refused("a number of more than 400 digits")
    return int(digits)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer)


def _skip_blanks(text: str, position: int) -> int:
    match = _BLANKS.match(text, position)
    return match.end() if match else position


def _broken(name: str, line: int, reason: str, field: str = "", *, hint: str = "") -> RawRow:
    return RawRow(line, None, Problem(file=name, line=line, field=field, reason=reason, hint=hint), fatal=True)
