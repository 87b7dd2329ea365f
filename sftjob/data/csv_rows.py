"""CSV and TSV (RFC 4180) → rows whose values are all strings, with the physical line on which each one starts.

The first line names the columns. Quotes work the same in both: a quoted field may hold the separator, line breaks and
doubled quotes. Blank lines are skipped.
"""

import csv
from collections.abc import Iterator
from typing import BinaryIO, Final

from sftjob.data.raw_rows import MAX_ROW_BYTES, TOO_LONG, BrokenFile, RawRow, broken
from sftjob.errors import Problem

_MAX_NAME: Final = 100
_SEPARATORS: Final = {",": "commas", "\t": "tabs", ";": "semicolons"}


def scan_csv(file: BinaryIO, name: str, *, separator: str) -> Iterator[RawRow]:
    """Yields the rows; a mistake in the quoting ends the walk, for want of a way back in.

    Args:
        file: At its beginning, and not compressed any more.
        name: What a person calls the file, for messages.
        separator: `,` or a tab.
    """
    # One limit for the whole process; the lines below keep a tighter one.
    csv.field_size_limit(max(csv.field_size_limit(), 2 * MAX_ROW_BYTES))
    lines = _Lines(file)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        columns = _next(reader, lines)
        if columns is None:
            return
        _check_header(columns, lines, separator)
        rows = 0
        while (fields := _next(reader, lines)) is not None:
            rows += 1
            yield RawRow(lines.row_start, None, _row(columns, fields, lines, name))
    except BrokenFile as error:
        yield broken(name, error.line, error.reason, error.field, hint=error.hint)
        return
    if not rows:
        yield broken(name, 0, "no rows", hint="only the line with the column names is there")


class _Lines:
    """The physical lines as text, with what the reader's errors leave out: where a row starts, how long it gets."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes = 0
        self.line = 0
        """1-based number of the line that was read last."""
        self.row_start = 0
        """1-based line on which the row starts."""
        self.mistake: tuple[int, str] | None = None
        """Line and reason of the first bytes in the row that are no text."""

    def start_row(self) -> None:
        self._bytes = 0
        self.row_start = 0
        self.mistake = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline(MAX_ROW_BYTES + 1)
        if not line:
            raise StopIteration
        self.line += 1
        self.row_start = self.row_start or self.line
        self._bytes += len(line)
        if self._bytes > MAX_ROW_BYTES:
            raise BrokenFile(TOO_LONG, line=self.row_start, hint="look for a quote that is not closed")
        # Whatever is no text goes through the reader and is found again in the row: its neighbours are not lost.
        text = line.decode(errors="surrogateescape")
        self.mistake = self.mistake or _mistake(text, self.line)
        return text


def _mistake(text: str, line: int) -> tuple[int, str] | None:
    if "\x00" in text:
        return line, "contains a NUL byte"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return line, f"not UTF-8 (byte {len(text[: error.start].encode()) + 1})"
    return None


def _next(reader: Iterator[list[str]], lines: _Lines) -> list[str] | None:
    """The fields of the next row that is not blank; None at the end."""
    while True:
        lines.start_row()
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise _broken(error, lines) from error
        if fields != []:
            return fields


def _broken(error: csv.Error, lines: _Lines) -> BrokenFile:
    """Words of Python's reader decide; none of its messages quotes a row, but they speak of its own options."""
    text = str(error)
    if text == "unexpected end of data":
        return BrokenFile("a quote is not closed", line=lines.row_start, hint="look for it on this line and after it")
    if "expected after" in text:
        where = "this line" if lines.line == lines.row_start else f"lines {lines.row_start} to {lines.line}"
        reason = "text after a closing quote"
        return BrokenFile(reason, line=lines.row_start, hint=f"double the quotes inside a field; look at {where}")
    if "new-line character" in text:
        reason = "a carriage return that ends no line"
        return BrokenFile(reason, line=lines.line, hint="end lines with \\n, or put the field into quotes")
    return BrokenFile(f"not CSV: {text}", line=lines.row_start)


def _check_header(columns: list[str], lines: _Lines, separator: str) -> None:
    """Refuses what names no columns. Names are not quoted: without a header they are a row's text."""
    line = lines.row_start
    if lines.mistake:
        raise BrokenFile(lines.mistake[1], line=lines.mistake[0])
    if columns[0].lstrip().startswith("{"):
        raise BrokenFile("JSON, not column names", line=line, hint="name the file .jsonl")
    other = next((mark for mark in _SEPARATORS if mark != separator and mark in columns[0]), None)
    if len(columns) == 1 and other:
        reason = f"one column, whose name has {_SEPARATORS[other]} in it"
        raise BrokenFile(reason, line=line, hint=f"separate columns by {_SEPARATORS[separator]}")
    seen: dict[str, int] = {}
    for number, column in enumerate(columns, start=1):
        if not column.strip():
            hint = "name it, or write the file without an index" if number == 1 else "name it"
            raise BrokenFile(f"column {number} has no name", line=line, hint=hint)
        if len(column) > _MAX_NAME or "\n" in column:
            reason = f"the name of column {number} is longer than {_MAX_NAME} characters or has a line break"
            raise BrokenFile(reason, line=line, hint="the first line must name the columns")
        if column in seen:
            reason = f"columns {seen[column]} and {number} have the same name"
            raise BrokenFile(reason, line=line, hint="the first line must name the columns, each once")
        seen[column] = number


def _row(columns: list[str], fields: list[str], lines: _Lines, name: str) -> dict[str, object] | Problem:
    if lines.mistake:
        line, reason = lines.mistake
        return Problem(file=name, line=line, reason=reason)
    if len(fields) != len(columns):
        reason = f"{_count(fields, 'field')}, but {_count(columns, 'column')}"
        hint = "put fields with separators or line breaks into quotes"
        return Problem(file=name, line=lines.row_start, reason=reason, hint=hint)
    return dict(zip(columns, fields, strict=True))


def _count(values: list[str], what: str) -> str:
    return f"{len(values)} {what}" if len(values) == 1 else f"{len(values)} {what}s"
