"""JSON Lines and JSON arrays → rows with the physical line on which each one starts.

JSON Lines is read line by line, so a file may be larger than memory; a JSON array has to be read whole.
"""

import json
import re
from collections.abc import Iterator
from typing import BinaryIO, Final

from sftjob.data.messages import row_field
from sftjob.data.raw_rows import MAX_ROW_BYTES, TOO_LONG, JsonObject, RawRow, broken, json_type
from sftjob.errors import Problem

MAX_ARRAY_BYTES: Final = 512 * 2**20
ONE_A_LINE: Final = "write one JSON object a line, or one JSON array of objects"

_BLANK: Final = b" \t\r\n"
_BLANKS: Final = re.compile(r"[ \t\r\n]*")
_LIST_OF_OBJECTS: Final = re.compile(r"\[[ \t\r\n]*\{")
_WRAPPERS: Final = ("data", "rows", "train", "examples")
"""Keys under which others hide the rows of a whole file."""
_MESSAGE_KEYS: Final = frozenset({"role", "from", "speaker", "content", "value"})


class Refused(ValueError):
    """What Python's JSON reader lets through and we do not. `position` is a byte offset."""

    def __init__(self, reason: str, position: int = 0) -> None:
        super().__init__(reason)
        self.position = position


def scan_lines(file: BinaryIO, name: str, *, head: bytes) -> Iterator[RawRow]:
    """Yields the rows of JSON Lines; blank lines are skipped.

    Args:
        file: At its beginning, and not compressed any more.
        name: What a person calls the file, for messages.
        head: The beginning of the same bytes, to recognise a file that is one object around its rows.
    """
    rows = _lines(file, name)
    first = next(rows, None)
    if first is None:
        return
    second = None
    if key := _wrapper(first, head):
        second = next(rows, None)
        if second is None or isinstance(first.value, Problem):
            yield broken(name, first.line, "one JSON object around all rows", key, hint="write the list alone")
            return
    yield first
    if second is not None:
        yield second
    yield from rows


def scan_array(file: BinaryIO, name: str) -> Iterator[RawRow]:
    """Yields the elements of a JSON array. Arguments as `scan_lines`."""
    data = file.read(MAX_ARRAY_BYTES + 1)
    if len(data) > MAX_ARRAY_BYTES:
        reason = f"a JSON array of more than {MAX_ARRAY_BYTES // 2**20} MiB"
        yield broken(name, 0, reason, hint="write one JSON object a line")
        return
    try:
        text = decode_text(data)
    except Refused as error:
        yield broken(name, data.count(b"\n", 0, error.position) + 1, str(error))
        return
    yield from _scan_elements(text, name)


def decode_text(data: bytes) -> str:
    """UTF-8 → text.

    Raises:
        Refused: it is not UTF-8, or has a NUL byte.
    """
    if (position := data.find(b"\x00")) >= 0:
        raise Refused("contains a NUL byte", position)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"not UTF-8: {error.reason} (byte {_column(data, error.start)})", error.start) from error


def parse_json(text: str) -> object:
    """JSON text → value.

    Raises:
        json.JSONDecodeError, Refused, RecursionError: it is no JSON, or more than JSON.
    """
    return _DECODER.decode(text)


def _lines(file: BinaryIO, name: str) -> Iterator[RawRow]:
    number = 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        if len(line) > MAX_ROW_BYTES:
            _skip_to_line_end(file, line)
            problem = Problem(file=name, line=number, reason=TOO_LONG, hint="look for a lost line break")
            yield RawRow(number, None, problem)
        elif line.strip(_BLANK):
            yield RawRow(number, None, _parse_line(line, name, number))


def _skip_to_line_end(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_ROW_BYTES)


def _parse_line(line: bytes, name: str, number: int) -> JsonObject | Problem:
    try:
        text = decode_text(line)
        value = parse_json(text)
    except json.JSONDecodeError as error:
        return Problem(file=name, line=number, reason=f"not JSON: {error.msg} (column {error.colno})", hint=ONE_A_LINE)
    except (Refused, RecursionError) as error:
        return Problem(file=name, line=number, reason=_reason(error))
    return _object(value, name, number, None)


def _wrapper(first: RawRow, head: bytes) -> str | None:
    """The key under which all rows lie, if the file is a single object; None where it is JSON Lines."""
    if isinstance(first.value, Problem):
        text = head.decode(errors="replace").lstrip(" \t\r\n")
        return _wrapper_key(text) if _goes_on(text) else None
    for key in _WRAPPERS:
        rows = first.value.get(key)
        # A single row may hold its messages under such a key.
        if isinstance(rows, list) and rows and isinstance(rows[0], dict) and not _MESSAGE_KEYS & rows[0].keys():
            return key
    return None


def _goes_on(text: str) -> bool:
    """Whether the first line is JSON as far as it goes, and goes on in the next one."""
    line, end, _ = text.partition("\n")
    try:
        parse_json(line)
    except json.JSONDecodeError as error:
        return not end or error.pos >= len(line.rstrip())
    except (Refused, RecursionError):
        pass
    return False


def _wrapper_key(text: str) -> str | None:
    """Walks over the keys of an object, of which the text is the beginning, to one that opens a list of objects."""
    position = 1
    try:
        while text.startswith(("{", ","), position - 1):
            key, position = _DECODER.raw_decode(text, _skip_blanks(text, position))
            position = _skip_blanks(text, position)
            if not isinstance(key, str) or not text.startswith(":", position):
                break
            position = _skip_blanks(text, position + 1)
            if key in _WRAPPERS and _LIST_OF_OBJECTS.match(text, position):
                return key
            position = _skip_blanks(text, _DECODER.raw_decode(text, position)[1]) + 1
    except (ValueError, RecursionError):
        pass
    return None


def _scan_elements(text: str, name: str) -> Iterator[RawRow]:
    """Walks over the elements of an array; the first mistake in its syntax ends the walk, for want of a way back in."""
    position = _skip_blanks(text, text.index("[") + 1)
    if text.startswith("]", position):
        yield broken(name, 0, "no rows", hint="the JSON array is empty")
        return
    line, counted, index, closed = 1, 0, 0, False
    while not closed:
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, end = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            reason = f"not JSON: {error.msg} (column {error.colno})"
            yield broken(name, error.lineno, reason, row_field(index, ""))
            return
        except (Refused, RecursionError) as error:
            yield broken(name, line, _reason(error), row_field(index, ""))
            return
        yield RawRow(line, index, _element(value, end - position, name, line, index))
        position, index = _skip_blanks(text, end), index + 1
        closed = text.startswith("]", position)
        if not closed and not text.startswith(",", position):
            yield broken(name, text.count("\n", 0, position) + 1, "not JSON: neither `,` nor `]` after a row")
            return
        position = _skip_blanks(text, position + 1)
    if position < len(text):
        yield broken(name, text.count("\n", 0, position) + 1, "not JSON: text after the array")


def _element(value: object, length: int, name: str, line: int, index: int) -> JsonObject | Problem:
    if length > MAX_ROW_BYTES:
        return Problem(file=name, line=line, field=row_field(index, ""), reason=TOO_LONG)
    return _object(value, name, line, index)


def _object(value: object, name: str, line: int, index: int | None) -> JsonObject | Problem:
    if isinstance(value, dict):
        return value
    reason = f"a row must be a JSON object, not {json_type(value)}"
    return Problem(file=name, line=line, field=row_field(index, ""), reason=reason, hint=ONE_A_LINE)


def _column(data: bytes, position: int) -> int:
    return position - data.rfind(b"\n", 0, position)


def _reason(error: Refused | RecursionError) -> str:
    return str(error) if isinstance(error, Refused) else "nested too deeply"


def _unique(pairs: list[tuple[str, object]]) -> JsonObject:
    """Python keeps the last of two equal keys in silence; text would be lost."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise Refused("the same key twice in one object")
    return value


def _no_constant(name: str) -> object:
    raise Refused(f"not JSON: {name}")


def _integer(digits: str) -> int:
    if len(digits) > 400:
        raise Refused("a number of more than 400 digits")
    return int(digits)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer)


def _skip_blanks(text: str, position: int) -> int:
    match = _BLANKS.match(text, position)
    return match.end() if match else position
