"""Parquet and Arrow files → rows of Python values, with their number for a line.

Files are read in batches:
memory holds one row group's pages or one record batch, never the whole file.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from sftjob.data.json_rows import Refused
from sftjob.data.raw_rows import MAX_ROW_BYTES, TOO_LONG, BrokenFile, JsonObject, RawRow, broken
from sftjob.data.table_types import as_plain, check_schema, json_maker
from sftjob.errors import Problem

Batches = Iterator[Any]
"""Of pyarrow.RecordBatch."""
_ROWS: Final = 64
"""Rows that become Python values at a time."""
_ROW_ERRORS: Final = (KeyError, Refused, json.JSONDecodeError, RecursionError)
_END: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_DAMAGED: Final = "copy it again"


def scan_parquet(file: BinaryIO, name: str) -> Iterator[RawRow]:
    """Yields the rows of a Parquet file, which must be able to seek. `name` is for messages."""

    def batches() -> Batches:
        parquet = pyarrow.parquet.ParquetFile(file)
        check_schema(parquet.schema_arrow)
        yield from parquet.iter_batches(batch_size=_ROWS)

    yield from _scan(batches, name, "Parquet")


def scan_arrow_file(file: BinaryIO, name: str) -> Iterator[RawRow]:
    """Yields the rows of an Arrow IPC file (Feather 2), which must be able to seek. `name` is for messages."""

    def batches() -> Batches:
        reader = pyarrow.ipc.open_file(file)
        check_schema(reader.schema)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number)

    yield from _scan(batches, name, "Arrow")


def scan_arrow_stream(file: BinaryIO, name: str) -> Iterator[RawRow]:
    """Yields the rows of an Arrow IPC stream. `name` is for messages."""

    def batches() -> Batches:
        if file.seekable():
            _check_end(file)
        yield from _stream_batches(file)

    yield from _scan(batches, name, "Arrow")


def scan_arrow_streams(paths: Sequence[Path], name: str) -> Iterator[RawRow]:
    """Yields the rows of several Arrow IPC streams of one table, as `datasets` keeps it, numbered through."""

    def batches() -> Batches:
        for path in paths:
            with pa.memory_map(str(path)) as file:
                yield from _stream_batches(file)

    yield from _scan(batches, name, "Arrow")


def _stream_batches(file: Any) -> Batches:
    with pyarrow.ipc.open_stream(file) as reader:
        check_schema(reader.schema)
        yield from reader


def _check_end(file: BinaryIO) -> None:
    """Readers take the end of the file for the end of the stream, wherever it was cut; writers leave a mark there."""
    file.seek(-min(len(_END), file.seek(0, os.SEEK_END)), os.SEEK_END)
    if file.read() != _END:
        raise BrokenFile("the Arrow stream has no end mark: it is cut off", hint=_DAMAGED)
    file.seek(0)


def _scan(batches: Callable[[], Batches], name: str, what: str) -> Iterator[RawRow]:
    number = 0
    try:
        with _arrow_errors(what):
            for batch in batches():
                for start in range(0, batch.num_rows, _ROWS):
                    for value in _values(batch.slice(start, _ROWS)):
                        number += 1
                        yield RawRow(number, None, _placed(value, name, number))
    except BrokenFile as error:
        yield broken(name, number + 1 if number else 0, error.reason, error.field, hint=error.hint)
        return
    if not number:
        yield broken(name, 0, "no rows", hint="the table is empty")


@contextmanager
def _arrow_errors(what: str) -> Iterator[None]:
    """Arrow tells of damage in many words and classes; some of its messages quote values."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            raise  # the file system's own
        raise BrokenFile(f"the {what} file is cut off or damaged", hint=_DAMAGED) from error
    except pa.ArrowNotImplementedError as error:
        raise BrokenFile(f"the {what} file uses what pyarrow {pa.__version__} cannot read") from error
    except (pa.ArrowException, ValueError, EOFError, MemoryError) as error:  # a damaged length may ask for terabytes
        if isinstance(error, BrokenFile):
            raise
        raise BrokenFile(f"the {what} file is cut off or damaged", hint=_DAMAGED) from error


def _values(batch: Any) -> Iterator[JsonObject | Problem]:
    """The rows of a small batch; one by one where not all of them are in order."""
    if batch.num_rows == 1:
        yield _value(batch)
        return
    try:
        batch.validate(full=True)
        rows = _rows(batch) if batch.nbytes <= MAX_ROW_BYTES else None
    except (pa.ArrowInvalid, *_ROW_ERRORS):
        rows = None
    if rows is not None:
        yield from rows
        return
    for row in range(batch.num_rows):
        yield _value(batch.slice(row, 1))


def _value(batch: Any) -> JsonObject | Problem:
    """A row, from a batch of one. Damaged offsets could crash the process: everything is checked before it is read."""
    try:
        batch.validate(full=True)
        if batch.nbytes > MAX_ROW_BYTES:
            return Problem(reason=TOO_LONG)
        return _rows(batch)[0]
    except KeyError:
        return Problem(reason="the same key twice in one map")
    except _ROW_ERRORS:
        return Problem(reason="holds JSON that cannot be read")
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        return Problem(reason="not UTF-8")


def _rows(batch: Any) -> list[JsonObject]:
    columns = [as_plain(column) for column in batch.columns]
    plain = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    makers = {field.name: make for field in batch.schema if (make := json_maker(field.type))}
    rows: list[JsonObject] = plain.to_pylist(maps_as_pydicts="strict")
    for row in rows:
        row.update({name: make(row[name]) for name, make in makers.items()})
    return rows


def _placed(value: JsonObject | Problem, name: str, number: int) -> JsonObject | Problem:
    return replace(value, file=name, line=number) if isinstance(value, Problem) else value
