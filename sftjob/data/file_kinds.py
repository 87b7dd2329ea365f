"""What a data file is, told by its first bytes; its name decides only about CSV, which has no mark of its own."""

import re
from pathlib import PurePath
from typing import Final, Literal

from sftjob.data.compression import SUFFIXES, codec_of
from sftjob.data.json_rows import ONE_A_LINE
from sftjob.data.raw_rows import BrokenFile

Kind = Literal["lines", "array", "csv", "tsv", "parquet", "arrow_file", "arrow_stream"]
HEAD_BYTES: Final = 2**16
"""What `kind_of` wants to see of the file's beginning; less where the file is shorter."""

BLANK: Final = b" \t\r\n"
_BYTE_ORDER_MARKS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_TABLES: Final[dict[bytes, Kind]] = {
    b"PAR1": "parquet",
    b"ARROW1\x00\x00": "arrow_file",
    b"\xff\xff\xff\xff": "arrow_stream",
}
_TAR_MARK: Final = (257, b"ustar")
_REPACK: Final = "unpack it and name a file in it"
_EXPORT: Final = "export its rows as JSON Lines, CSV or Parquet"
_FOREIGN: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"PK\x03\x04", "a zip archive", _REPACK),
    (b"PK\x05\x06", "an empty zip archive", _REPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _REPACK),
    (b"Rar!", "a rar archive", _REPACK),
    (b"BZh", "compressed by bzip2", "use gzip or zstd"),
    (b"\xfd7zXZ\x00", "compressed by xz", "use gzip or zstd"),
    (b"\x04\x22\x4d\x18", "compressed by lz4", "use gzip or zstd"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word document", _EXPORT),
    (b"SQLite format 3\x00", "an SQLite database", _EXPORT),
    (b"\x89HDF", "an HDF5 file", _EXPORT),
    (b"\x93NUMPY", "a NumPy array", _EXPORT),
    (b"FEA1", "a Feather file of version 1", _EXPORT),
    (b"ORC", "an ORC file", _EXPORT),
    (b"Obj\x01", "an Avro file", _EXPORT),
    (b"%PDF-", "a PDF document", _EXPORT),
    (b"version https://git-lfs", "the pointer that git-lfs leaves, not the file", "run `git lfs pull` where it lies"),
)
_HTML: Final = re.compile(rb"\s*<(!doctype html|html|head|\?xml)\b", re.IGNORECASE)
_PICKLE: Final = re.compile(rb"\x80[\x02-\x05]")


def kind_of(head: bytes, *, name: str, suffix: str) -> Kind:
    """How to read a file.

    Args:
        head: Its first bytes, decompressed.
        name: What a person calls it; .csv and .tsv at its end count, also before .gz and .zst.
        suffix: Of its path, where the name has none.

    Raises:
        BrokenFile: it is nothing that holds rows.
    """
    for magic, kind in _TABLES.items():
        if head.startswith(magic):
            return kind
    if head.startswith(_BYTE_ORDER_MARKS):
        raise BrokenFile("starts with a byte order mark", line=1, hint="save the file as UTF-8 without one")
    _refuse_foreign(head)
    if not head.strip(BLANK):
        raise BrokenFile("no rows", hint=ONE_A_LINE)
    if named := _named_kind(name) or _named_kind(suffix):
        return named
    return "array" if head.lstrip(BLANK)[:1] == b"[" else "lines"


def _named_kind(name: str) -> Kind | None:
    suffixes = PurePath(f"x{name.lower()}").suffixes
    while suffixes and suffixes[-1] in SUFFIXES:
        suffixes.pop()
    if not suffixes or suffixes[-1] not in (".csv", ".tsv"):
        return None
    return "csv" if suffixes[-1] == ".csv" else "tsv"


def _refuse_foreign(head: bytes) -> None:
    if codec_of(head):
        raise BrokenFile("compressed twice", hint="decompress it once")
    if head.startswith(b"PK") and b"[Content_Types].xml" in head:
        raise BrokenFile("is an Excel or Word document", hint=_EXPORT)
    for magic, what, hint in _FOREIGN:
        if head.startswith(magic):
            raise BrokenFile(f"is {what}", hint=hint)
    start, mark = _TAR_MARK
    if head.startswith(mark, start):
        raise BrokenFile("is a tar archive", hint=_REPACK)
    if _PICKLE.match(head):
        raise BrokenFile("is a pickle, which can run code", hint=_EXPORT)
    if _HTML.match(head):
        raise BrokenFile("is a web page, not data", hint="download the file itself, perhaps with a token")
