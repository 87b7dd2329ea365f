"""One row's columns under the format's own names, and what is wrong with them. No message quotes a row."""

import difflib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from sftjob.data.json_rows import Refused, parse_json
from sftjob.data.messages import Message, Row, Tool, row_field
from sftjob.data.problems import Problems
from sftjob.data.raw_rows import JsonObject, RawRow, json_type
from sftjob.errors import Problem
from sftjob.spec.data import Column

Columns = Mapping[str, str]
"""The format's own column → its name in the file, for those that differ."""
_SHOWN_TO_THE_MODEL: Final = ("system", "tools")
"""Columns that a model is meant to see, under the names that they have everywhere."""
MAX_DEPTH: Final = 100
"""Levels of nested objects and lists; templates and JSON writers give up at some 1,000."""


class Report(Protocol):
    """Books that something is wrong with a field of the row: `report(field, reason, hint="")`."""

    def __call__(self, field: str, reason: str, hint: str = "", /) -> None: ...


class Fields:
    """A row whose fields are being looked at. It is good as long as nothing is in `found`."""

    def __init__(self, raw: RawRow, value: JsonObject, columns: Columns, file: str) -> None:
        self.value = value
        self.columns = columns
        self.line = raw.line
        self.found: list[Problem] = []
        self._index = raw.index
        self._file = file

    def name(self, column: Column) -> str:
        """What the file calls a column."""
        return self.columns.get(column, column)

    def has(self, column: Column) -> bool:
        return self.name(column) in self.value

    def get(self, column: Column) -> object:
        """A column's value; None where the row does not have it."""
        return self.value.get(self.name(column))

    def report(self, field: str, reason: str, hint: str = "", /) -> None:
        """Books a mistake; `field` is a path in the file's own names, empty for the row as a whole."""
        place = row_field(self._index, field)
        self.found.append(Problem(file=self._file, line=self.line, field=place, reason=reason, hint=hint))

    def require(self, columns: Iterable[str]) -> None:
        """Books the columns that are missing, with the nearest name that is there."""
        for column in columns:
            name = self.columns.get(column, column)
            if name in self.value:
                continue
            near = difflib.get_close_matches(name, list(self.value), n=1)
            hint = f"did you mean `{near[0][:30]}`?" if near else f"the row has {self.listed()}"
            self.report(name, "no such column", hint)

    def listed(self) -> str:
        """The names of the row's columns, cut short: a broken file may have text for names."""
        shown = [f"`{name[:30]}`" for name in list(self.value)[:8]]
        return ", ".join(shown + (["…"] if len(self.value) > 8 else [])) or "(none)"

    def text(self, column: Column) -> str:
        """A column that must be text."""
        return checked_text(self.get(column), self.name(column), self.report)

    def optional_text(self, column: Column) -> str:
        """A column that may be missing, null or blank; empty then."""
        value = self.get(column)
        if value is None or (isinstance(value, str) and not value.strip()):
            return ""
        return self.text(column)

    def row(
        self,
        messages: Iterable[Message] = (),
        *,
        tools: Sequence[Tool] = (),
        text: str | None = None,
        left_out: int = 0,
    ) -> Row:
        """What the row became, with its place in the file."""
        return Row(
            tuple(messages),
            file=self._file,
            line=self.line,
            index=self._index,
            tools=tuple(tools),
            text=text,
            left_out=left_out,
        )


class Convert(Protocol):
    """Makes a row of its fields; the result counts only when nothing was reported."""

    def __call__(self, fields: Fields, /) -> Row: ...


@dataclass(frozen=True)
class RowFormat:
    """One shape of a row. Formats whose conversations lie over several rows override `rows`."""

    columns: tuple[Column, ...]
    """Those that a spec may rename."""
    required: tuple[Column, ...]
    """Columns by which the format is recognised; every row must have them."""
    convert: Convert
    inner: frozenset[str] = frozenset()
    """Those of `columns` that are keys of a message and not of a row."""

    def fits(self, fields: Fields) -> bool:
        """Whether a file whose first row is this one may be of this format."""
        return all(fields.has(column) for column in self.required)

    def expected(self, fields: Fields) -> Iterable[str]:
        """Columns that the row must have."""
        # An optional column that the spec maps by hand is expected in the file too: a typo would drop it in silence.
        mapped = (column for column in fields.columns if column not in self.inner)
        return dict.fromkeys((*self.required, *mapped))

    def rows(self, rows: Iterable[Fields], problems: Problems) -> Iterable[Row]:
        """Converts the rows of a file, and books those that cannot be used."""
        for fields in rows:
            fields.require(self.expected(fields))
            self._refuse_what_would_vanish(fields)
            row = None if fields.found else self.convert(fields)
            if fields.found:
                problems.add_row(fields.found)
            elif row:
                yield row

    def _refuse_what_would_vanish(self, fields: Fields) -> None:
        """A text is taken as it stands; the other formats would drop what they do not know."""
        for column in _SHOWN_TO_THE_MODEL:
            if column not in self.columns and "text" not in self.columns and fields.value.get(column):
                fields.report(column, "this format takes no such column", "write it into `messages`, or remove it")


def checked_text(value: object, field: str, report: Report, *, may_be_empty: bool = False) -> str:
    """A text that can be trained on; empty where something was reported."""
    if not isinstance(value, str):
        report(field, f"must be a string, not {json_type(value)}")
    elif not value.strip() and not may_be_empty:
        report(field, "empty")
    elif reason := _text_mistake(value):
        report(field, reason, _SURROGATE_HINT if reason == _SURROGATE else "")
    else:
        return value
    return ""


def known_word(value: str) -> str:
    """`` `word` `` with a blank before it where the value is surely a name and no text of the row; else nothing."""
    return f" `{value}`" if value.isidentifier() and len(value) <= 20 else ""


class NotJson(ValueError):
    """A string that should hold JSON does not; its text is the reason."""


def json_in(text: str) -> object:
    """Reads JSON in a string as strictly as a row itself.

    Raises:
        NotJson: it is none.
    """
    try:
        return parse_json(text)
    except json.JSONDecodeError as error:
        raise NotJson(f"not JSON: {error.msg} (character {error.pos + 1})") from error
    except RecursionError as error:
        raise NotJson("nested too deeply") from error
    except Refused as error:
        raise NotJson(str(error)) from error


def json_mistake(value: object) -> str | None:
    """Why a value cannot be shown to a template and written as JSON again; None when it can."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        for item in level:
            if reason := _scalar_mistake(item):
                return reason
        level = [child for item in level for child in _children(item)]
        if not level:
            return None
    return f"nested more than {MAX_DEPTH} levels deep"


_SURROGATE: Final = "contains half of a surrogate pair"
_SURROGATE_HINT: Final = "write such characters as UTF-8 or as a whole \\u pair"


def _text_mistake(text: str) -> str | None:
    if "\x00" in text:
        return "contains a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE
    return None


def _scalar_mistake(value: object) -> str | None:
    if isinstance(value, str):
        return _text_mistake(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "contains a number that is not finite"
    if value is None or isinstance(value, bool | int | float | list | dict):
        return None
    return "contains a value that JSON does not have"


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return (*value, *value.values())
    return value if isinstance(value, list) else ()
