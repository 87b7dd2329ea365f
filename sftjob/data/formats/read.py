"""Files → conversations: which format a file has, and its rows one at a time."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Final

from sftjob.data.formats.chat import from_messages, from_sharegpt
from sftjob.data.formats.fields import Fields, RowFormat
from sftjob.data.formats.instructions import from_alpaca, from_prompt_completion
from sftjob.data.formats.texts import Guanaco, from_guanaco, from_text
from sftjob.data.formats.trees import Oasst, from_oasst
from sftjob.data.messages import Row
from sftjob.data.problems import Problems
from sftjob.data.raw_rows import RawRow
from sftjob.data.sources import scan_rows
from sftjob.errors import Problem, SpecError
from sftjob.spec.data import FORMAT_COLUMNS, Column, Format

Columns = Mapping[str, str] | Mapping[Column, str]
"""The format's own column → its name in the file, for those that differ."""

_TURN: Final = frozenset({"role", "content"})

FORMATS: Final[dict[str, RowFormat]] = {
    "messages": RowFormat(FORMAT_COLUMNS["messages"], ("messages",), from_messages, _TURN),
    "sharegpt": RowFormat(FORMAT_COLUMNS["sharegpt"], ("conversations",), from_sharegpt, _TURN),
    "alpaca": RowFormat(FORMAT_COLUMNS["alpaca"], ("instruction", "output"), from_alpaca),
    "prompt_completion": RowFormat(
        FORMAT_COLUMNS["prompt_completion"], ("prompt", "completion"), from_prompt_completion
    ),
    "oasst": Oasst(FORMAT_COLUMNS["oasst"], (), from_oasst),
    "guanaco": Guanaco(FORMAT_COLUMNS["guanaco"], ("text",), from_guanaco),
    "text": RowFormat(FORMAT_COLUMNS["text"], ("text",), from_text),
}
"""In the order in which `auto` tries them."""


def read_messages(
    path: str | Path, *, format: Format = "auto", columns: Columns | None = None, name: str | None = None
) -> list[Row]:
    """Loads a data file as ChatML conversations.

    Args:
        path: The file.
        format: Shape of a row; `auto` goes by the columns of the first row.
        columns: Names in the file for the format's own columns, for instance
            `{"prompt": "question", "completion": "answer"}`.
        name: What to call the file in messages; its path by default.

    Raises:
        DataError: rows are wrong; up to 20 of them are named as `file:line: field: reason`.
        InputMissing: the file is not there or cannot be read.
        SpecError: `columns` names a column that the format does not have.
    """
    return list(iter_messages(path, format=format, columns=columns, name=name))


def iter_messages(
    path: str | Path,
    *,
    format: Format = "auto",
    columns: Columns | None = None,
    name: str | None = None,
    problems: Problems | None = None,
) -> Iterator[Row]:
    """As `read_messages`, one row at a time; the errors of all rows are raised together after the last good one.

    With `problems`, errors of rows are booked there instead, and the caller raises.
    """
    file = name or str(path)
    booked = Problems() if problems is None else problems
    raws = scan_rows(Path(path), name=file)
    yield from convert_rows(raws, file=file, format=format, columns=columns or {}, problems=booked)
    if problems is None:
        booked.raise_any()


def convert_rows(
    raws: Iterable[RawRow], *, file: str, format: Format, columns: Columns, problems: Problems
) -> Iterator[Row]:
    """Converts the rows of one file, and books those that cannot be used.

    Args:
        raws: The rows.
        file: What a person calls the file.
        format: Shape of a row; `auto` goes by the first row that could be read.
        columns: Names in the file for the format's own columns.
        problems: Takes the mistakes.

    Raises:
        SpecError: `columns` names a column that the format does not have.
    """
    names = {str(column): name for column, name in columns.items()}
    _check_columns(format, names)
    rows = _readable(raws, names, file, problems)
    row_format = FORMATS.get(format)
    if row_format is None:
        first = next(rows, None)
        if first is None:
            return
        row_format = _detect(first)
        if row_format is None:
            first.report("", f"no known format has the columns {first.listed()}", _NAME_THEM)
            problems.add_fatal(first.found[0])
            return
        rows = chain([first], rows)
    yield from row_format.rows(rows, problems)


_NAME_THEM: Final = "name them with `columns`, for instance `{prompt: question, completion: answer}`"


def _check_columns(format: Format, names: Mapping[str, str]) -> None:
    candidates = [FORMATS[format]] if format != "auto" else list(FORMATS.values())
    if any(set(names) <= set(candidate.columns) for candidate in candidates):
        return
    known = list(dict.fromkeys(column for candidate in candidates for column in candidate.columns))
    unknown = sorted(set(names) - set(known))
    if not unknown:
        raise SpecError("mixes the columns of several formats", field="columns", hint="keep those of one format")
    raise SpecError(
        f"the format `{format}` has no such column", field=f"columns.{unknown[0]}", hint=f"it has {', '.join(known)}"
    )


def _readable(raws: Iterable[RawRow], columns: Mapping[str, str], file: str, problems: Problems) -> Iterator[Fields]:
    for raw in raws:
        if not isinstance(raw.value, Problem):
            yield Fields(raw, raw.value, columns, file)
        elif raw.fatal:
            problems.add_fatal(raw.value)
        else:
            problems.add_row([raw.value])


def _detect(first: Fields) -> RowFormat | None:
    mapped = set(first.columns)
    fitting = [row_format for row_format in FORMATS.values() if mapped <= set(row_format.columns)]
    for row_format in fitting:
        if row_format.fits(first):
            return row_format
    # What is mapped tells the format, too; the row's own message can then name the column that is missing.
    return max(fitting, key=lambda each: _likeness(each, first)) if mapped else None


def _likeness(row_format: RowFormat, first: Fields) -> tuple[int, float]:
    """By the columns that are there, then by the share of the format's columns that the spec maps."""
    return sum(map(first.has, row_format.required)), len(first.columns) / len(row_format.columns)
