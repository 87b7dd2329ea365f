"""Rows → ChatML messages: one converter per format. Each says what it takes and refuses the rest by field.

A new format is a converter and an entry in `FORMATS`; `sftjob.spec.data.Format` names it for people.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from sftjob.data.messages import ROLES, Message, Role, Row, row_field
from sftjob.data.problems import Problems
from sftjob.data.sources import JsonObject, RawRow, json_type, scan_rows
from sftjob.errors import Problem, SpecError
from sftjob.spec.data import Format

MESSAGES_COLUMNS = ("messages",)
PROMPT_COMPLETION_COLUMNS = ("prompt", "completion", "system")

Columns = Mapping[str, str]
"""The format's own column → its name in the file, for those that differ."""
Report = Callable[..., None]
"""`report(field, reason, hint="")`: something is wrong with a field of the row."""


@dataclass(frozen=True)
class RowFormat:
    """One shape of a row."""

    columns: tuple[str, ...]
    required: tuple[str, ...]
    """Columns by which the format is recognised; every row must have them."""
    convert: Callable[[JsonObject, Columns, Report], tuple[Message, ...]]
    """Its result counts only when nothing was reported."""


def read_messages(
    path: str | Path, *, format: Format = "auto", columns: Columns | None = None, name: str | None = None
) -> list[Row]:
    """Loads a JSON Lines or JSON array file as ChatML conversations.

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
    path: str | Path, *, format: Format = "auto", columns: Columns | None = None, name: str | None = None
) -> Iterator[Row]:
    """As `read_messages`, one row at a time; the errors of all rows are raised together after the last good one."""
    file = name or str(path)
    names = dict(columns or {})
    _check_columns(format, names)
    row_format = FORMATS.get(format)
    problems = Problems()
    for raw in scan_rows(Path(path), name=file):
        if isinstance(raw.value, Problem):
            if raw.fatal:
                problems.add_fatal(raw.value)
            else:
                problems.add_row([raw.value])
            continue
        row_format = row_format or _detect(raw.value, names)
        if row_format is None:
            problems.add_fatal(_undetected(raw, raw.value, file))
            break
        if row := _convert(row_format, raw, raw.value, names, file=file, problems=problems):
            yield row
    problems.raise_any()


def _check_columns(format: Format, names: Columns) -> None:
    candidates = [FORMATS[format]] if format != "auto" else list(FORMATS.values())
    if any(set(names) <= set(candidate.columns) for candidate in candidates):
        return
    known = [column for candidate in candidates for column in candidate.columns]
    unknown = sorted(set(names) - set(known))
    if not unknown:
        raise SpecError("mixes the columns of several formats", field="columns", hint="keep those of one format")
    raise SpecError(
        f"the format `{format}` has no such column", field=f"columns.{unknown[0]}", hint=f"it has {', '.join(known)}"
    )


def _detect(value: JsonObject, names: Columns) -> RowFormat | None:
    fitting = [row_format for row_format in FORMATS.values() if set(names) <= set(row_format.columns)]
    for row_format in fitting:
        if all(names.get(column, column) in value for column in row_format.required):
            return row_format
    # What is mapped tells the format, too; the row's own message can then name the column that is missing.
    return fitting[0] if names else None


def _undetected(raw: RawRow, value: JsonObject, file: str) -> Problem:
    return Problem(
        file=file,
        line=raw.line,
        field=row_field(raw.index, ""),
        reason=f"no known format has the columns {_listed(value)}",
        hint="name them with `columns`, for instance `{prompt: question, completion: answer}`",
    )


def _convert(
    row_format: RowFormat, raw: RawRow, value: JsonObject, names: Columns, *, file: str, problems: Problems
) -> Row | None:
    found: list[Problem] = []

    def report(field: str, reason: str, hint: str = "") -> None:
        found.append(Problem(file=file, line=raw.line, field=row_field(raw.index, field), reason=reason, hint=hint))

    # An optional column that the spec maps by hand is expected in the file too: a typo would drop it in silence.
    for column in dict.fromkeys((*row_format.required, *names)):
        if names.get(column, column) not in value:
            _report_missing(names.get(column, column), value, report)
    messages = () if found else row_format.convert(value, names, report)
    if found:
        problems.add_row(found)
        return None
    return Row(messages, file=file, line=raw.line, index=raw.index)


def _report_missing(column: str, value: JsonObject, report: Report) -> None:
    near = difflib.get_close_matches(column, list(value), n=1)
    report(column, "no such column", f"did you mean `{near[0]}`?" if near else f"the row has {_listed(value)}")


def _listed(value: JsonObject) -> str:
    """The names of a row's columns, cut short: a broken file may have text for names."""
    shown = [f"`{name[:30]}`" for name in list(value)[:8]]
    return ", ".join(shown + (["…"] if len(value) > 8 else [])) or "(none)"


def _from_messages(value: JsonObject, names: Columns, report: Report) -> tuple[Message, ...]:
    """Takes a list of `{role, content}`: an optional system message first, an assistant's turn last."""
    column = names.get("messages", "messages")
    if value.get("tools"):
        report("tools", "tool definitions are not supported", "remove the column")
    turns = value[column]
    if not isinstance(turns, list):
        report(column, f"must be a list of messages, not {json_type(turns)}")
        return ()
    if not turns:
        report(column, "no messages")
        return ()
    messages = [_message(turn, f"{column}.{position}", report) for position, turn in enumerate(turns)]
    roles = [message.role for message in messages]
    if "system" in roles[1:]:
        report(f"{column}.{roles.index('system', 1)}.role", "a system message must come first")
    if "assistant" not in roles:
        report(column, "no assistant turn", "a row needs an answer to learn from")
    elif roles[-1] != "assistant":
        report(f"{column}.{len(roles) - 1}.role", "the last turn must be the assistant's")
    return tuple(messages)


def _message(turn: object, field: str, report: Report) -> Message:
    if not isinstance(turn, dict):
        report(field, f"must be an object with `role` and `content`, not {json_type(turn)}")
        return Message("assistant", "")
    for key in turn:
        if key not in ("role", "content") and turn[key] is not None:
            report(f"{field}.{key[:30]}", "not supported in a message", "keep `role` and `content` alone")
    return Message(_role(turn, field, report), _text(turn, "content", f"{field}.content", report))


def _role(turn: JsonObject, field: str, report: Report) -> Role:
    role = turn.get("role")
    if isinstance(role, str) and role in ROLES:
        return cast("Role", role)
    hint = f"use {', '.join(ROLES[:-1])} or {ROLES[-1]}"
    if "role" not in turn:
        report(f"{field}.role", "missing", hint)
    elif not isinstance(role, str):
        report(f"{field}.role", f"must be a string, not {json_type(role)}", hint)
    elif role.isidentifier() and len(role) <= 20:
        report(f"{field}.role", f"unknown role `{role}`", hint)
    else:
        report(f"{field}.role", "unknown role", hint)
    return "assistant"


def _from_prompt_completion(value: JsonObject, names: Columns, report: Report) -> tuple[Message, ...]:
    """Takes two strings, a prompt and its completion, and optionally a system prompt."""
    prompt, completion, system = (names.get(column, column) for column in PROMPT_COMPLETION_COLUMNS)
    messages = (
        Message("user", _text(value, prompt, prompt, report)),
        Message("assistant", _text(value, completion, completion, report)),
    )
    if value.get(system) in (None, ""):
        return messages
    return (Message("system", _text(value, system, system, report)), *messages)


def _text(value: JsonObject, key: str, field: str, report: Report) -> str:
    text = value.get(key)
    if key not in value:
        report(field, "missing")
    elif not isinstance(text, str):
        report(field, f"must be a string, not {json_type(text)}")
    elif not text.strip():
        report(field, "empty")
    elif "\x00" in text:
        report(field, "contains a NUL character")
    elif not _encodes(text):
        report(field, "contains half of a surrogate pair", "write such characters as UTF-8 or as a whole \\u pair")
    else:
        return text
    return ""


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


FORMATS: Final[dict[str, RowFormat]] = {
    "messages": RowFormat(MESSAGES_COLUMNS, MESSAGES_COLUMNS, _from_messages),
    "prompt_completion": RowFormat(PROMPT_COMPLETION_COLUMNS, ("prompt", "completion"), _from_prompt_completion),
}
