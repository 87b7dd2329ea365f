"""Data files → rows with the place where each one starts: JSON Lines, JSON, CSV, TSV, Parquet and Arrow.

What a file is follows from its bytes, not from its name; only CSV and TSV are told by .csv and .tsv. Any of them may be
compressed by gzip or zstd. A byte order mark is refused: other readers of the same file would trip over it. Memory is
bounded for everything but JSON arrays, which have a limit. No message quotes a row.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from sftjob.data.compression import open_plain
from sftjob.data.csv_rows import scan_csv
from sftjob.data.file_kinds import BLANK, HEAD_BYTES, Kind, kind_of
from sftjob.data.json_rows import MAX_ARRAY_BYTES, scan_array, scan_lines
from sftjob.data.problems import Problems
from sftjob.data.raw_rows import MAX_ROW_BYTES, BrokenFile, JsonObject, RawRow, broken, json_type
from sftjob.errors import InputMissing, Problem

__all__ = ["MAX_ARRAY_BYTES", "MAX_ROW_BYTES", "JsonObject", "RawRow", "json_type", "read_rows", "scan_rows"]

MAX_UNPACKED_BYTES: Final = 16 * 2**30
"""Of a compressed Parquet or Arrow file, which has to be unpacked on disk: it is read from its end."""
_COPY_BYTES: Final = 2**20


def read_rows(path: Path, *, name: str) -> Iterator[tuple[int, JsonObject]]:
    """Yields the line and the object of each row.

    Args:
        path: The file.
        name: What a person calls the file, for messages; .csv or .tsv at its end (or the path's) tells CSV.

    Raises:
        DataError: at the end, all broken rows of the file, or what makes the rest of it unreadable; no rows.
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
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputMissing("is not a regular file", file=name, hint="write its rows to a file first")
        yield from _scan(path, name)
    except BrokenFile as error:
        yield broken(name, error.line, error.reason, error.field, hint=error.hint)
    except FileNotFoundError as error:
        raise InputMissing("no such file", file=name, hint="check the path") from error
    except IsADirectoryError as error:
        raise InputMissing("is a folder", file=name, hint="name a data file in it") from error
    except PermissionError as error:
        raise InputMissing("may not be read", file=name, hint="check the file's permissions") from error


def _scan(path: Path, name: str) -> Iterator[RawRow]:
    with open_plain(path) as file:
        head = _head(file)
    kind = kind_of(head, name=name, suffix="".join(path.suffixes[-2:]))
    with open_plain(path) as file:
        match kind:
            case "array":
                yield from scan_array(file, name)
            case "lines":
                yield from scan_lines(file, name, head=head)
            case "csv" | "tsv":
                yield from scan_csv(file, name, separator="," if kind == "csv" else "\t")
            case _:
                yield from _scan_table(file, name, kind)


def _head(file: BinaryIO) -> bytes:
    """The beginning of a file, or of what follows a lot of blanks."""
    while head := file.read(HEAD_BYTES):
        if head.strip(BLANK):
            return head
    return b""


def _scan_table(file: BinaryIO, name: str, kind: Kind) -> Iterator[RawRow]:
    from sftjob.data import table_rows  # noqa: PLC0415 - pyarrow is imported only by those who need it

    if kind == "arrow_stream":
        yield from table_rows.scan_arrow_stream(file, name)
        return
    scan = table_rows.scan_parquet if kind == "parquet" else table_rows.scan_arrow_file
    if file.seekable():
        yield from scan(file, name)
        return
    with tempfile.TemporaryFile(prefix="sftjob-") as unpacked:
        _unpack(file, unpacked)
        yield from scan(unpacked, name)


def _unpack(file: BinaryIO, into: BinaryIO) -> None:
    while chunk := file.read(_COPY_BYTES):
        if into.tell() + len(chunk) > MAX_UNPACKED_BYTES:
            reason = f"more than {MAX_UNPACKED_BYTES // 2**30} GiB when decompressed"
            raise BrokenFile(reason, hint="decompress it, or write Parquet with a compression of its own")
        into.write(chunk)
