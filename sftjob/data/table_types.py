"""Which column types of Parquet and Arrow files are taken, and what they become.

Texts, numbers, booleans, lists, structs and maps with text keys become what JSON would make of them, null None, and
dictionaries (categories) their values. Dates, times, timestamps and decimals become text, as Arrow writes them
(`2024-01-31 12:00:00`): they stand beside the text in many data sets and no format reads them. JSON columns are parsed.
Bytes, and with them images and sound, durations and unions are refused by the column's name.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa
from pyarrow import types

from sftjob.data.json_rows import parse_json
from sftjob.data.raw_rows import BrokenFile

_SHOWN: Final = 30
"""Characters of a column's name in a message."""
_LEAVES: Final = ("string", "large_string", "string_view", "boolean", "integer", "floating", "null")
_STRINGIFIED: Final = ("date", "time", "timestamp", "decimal")
_BINARY: Final = ("binary", "large_binary", "fixed_size_binary", "binary_view")
_TEXT_ALONE: Final = "keep columns of text alone"


def check_schema(schema: Any) -> None:
    """Refuses columns that are no text, number, list or struct of such."""
    if not schema.names:
        raise BrokenFile("no columns")
    _check_names(schema.names, "")
    for field in schema:
        _check_type(field.type, field.name[:_SHOWN])


def as_plain(column: Any) -> Any:
    """A column of types that Python values come from. Times are told in UTC: that needs no time zone database."""
    for change in (_in_utc, _as_text):
        target = _with_leaves(column.type, change)
        if target != column.type:
            column = column.cast(target)
    return column


def json_maker(type: Any) -> Callable[[Any], Any] | None:
    """What makes JSON of the Python values of a type; None where they are it already.

    JSON texts are parsed. A struct has the keys of all rows, null where a row does not have them: those are left out,
    or a call would get arguments that nobody wrote.
    """
    if isinstance(type, pa.JsonType):
        return lambda value: None if value is None else parse_json(value)
    if types.is_dictionary(type):
        return json_maker(type.value_type)
    if _is_list(type) and (inner := json_maker(type.value_type)):
        return lambda values: None if values is None else [inner(value) for value in values]
    if types.is_map(type) and (item := json_maker(type.item_type)):
        return lambda pairs: None if pairs is None else {key: item(value) for key, value in pairs.items()}
    if types.is_struct(type):
        makers = {field.name: json_maker(field.type) or _same for field in type}
        return lambda value: value and {key: makers[key](item) for key, item in value.items() if item is not None}
    return None


def _same(value: Any) -> Any:
    return value


def _check_names(names: Sequence[str], column: str) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BrokenFile(f"the name `{twice[:_SHOWN]}` stands twice", field=column, hint="rename one of them")


def _check_type(type: Any, column: str) -> None:
    if isinstance(type, pa.JsonType) or _is_any(type, (*_LEAVES, *_STRINGIFIED)):
        return
    if types.is_struct(type):
        _check_names([field.name for field in type], column)
        for field in type:
            _check_type(field.type, column)
    elif _is_list(type) or types.is_dictionary(type):
        _check_type(type.value_type, column)
    elif types.is_map(type) and _is_any(type.key_type, ("string", "large_string")):
        _check_type(type.item_type, column)
    elif _is_any(type, _BINARY):
        raise BrokenFile("holds bytes (an image or sound?), not text", field=column, hint=_TEXT_ALONE)
    else:
        raise BrokenFile(f"has the type {type.__class__.__name__}, not text", field=column, hint=_TEXT_ALONE)


def _is_any(type: Any, kinds: Sequence[str]) -> bool:
    return any(getattr(types, f"is_{kind}")(type) for kind in kinds)


def _is_list(type: Any) -> bool:
    return _is_any(type, ("list", "large_list", "fixed_size_list", "list_view", "large_list_view"))


def _in_utc(type: Any) -> Any:
    return pa.timestamp(type.unit, "UTC") if types.is_timestamp(type) and type.tz else type


def _as_text(type: Any) -> Any:
    if _is_any(type, _STRINGIFIED):
        return pa.string()
    return pa.float64() if types.is_float16(type) else type


def _with_leaves(type: Any, change: Callable[[Any], Any]) -> Any:
    """The same nested type with other types in its leaves."""
    if types.is_struct(type):
        return pa.struct([field.with_type(_with_leaves(field.type, change)) for field in type])
    if types.is_map(type):
        return pa.map_(type.key_type, _with_leaves(type.item_type, change))
    if not _is_list(type) and not types.is_dictionary(type):
        return change(type)
    inner = _with_leaves(type.value_type, change)
    if inner == type.value_type:
        return type
    return inner if types.is_dictionary(type) else _list_of(inner, type)


def _list_of(inner: Any, type: Any) -> Any:
    if types.is_fixed_size_list(type):
        return pa.list_(inner, type.list_size)
    return pa.large_list(inner) if _is_any(type, ("large_list", "large_list_view")) else pa.list_(inner)
