"""A corpus of broken files of every kind: each mistake is one line, `file:line: field: reason; next step`."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from sftjob.data import table_rows
from sftjob.data.raw_rows import MAX_ROW_BYTES
from sftjob.data.sources import read_rows, scan_rows
from sftjob.errors import DataError, Problem
from tests.unit.data.test_sources import arrow, parquet, zstd

SECRET = "xyzzy"
"""Stands for the text of a row: no message may hold it."""
ROW = json.dumps({"prompt": SECRET, "completion": SECRET})
LINES = f"{ROW}\n".encode() * 2000
CSV = f"prompt,completion\n{SECRET},{SECRET}\n".encode()
TABLE = pa.Table.from_pylist([{"prompt": f"{SECRET} {number}", "n": number} for number in range(1000)])
PARQUET = parquet(TABLE)
ARROW_FILE, ARROW_STREAM = arrow(TABLE, "file", 100), arrow(TABLE, "stream", 100)

_SHAPE = "write one JSON object a line, or one JSON array of objects"
_EXPORT = "export its rows as JSON Lines, CSV or Parquet"
_UNPACK = "unpack it and name a file in it"
_FIRST = "the first line must name the columns"
_QUOTE = "put fields with separators or line breaks into quotes"
_TEXT = "keep columns of text alone"


def table(name: str, values: pa.Array) -> dict[str, bytes]:
    """A table with this column, as each kind of file that can hold it."""
    whole = pa.table({"prompt": [SECRET] * len(values), name: values})
    return {"file": arrow(whole, "file"), "stream": arrow(whole, "stream")}


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, LINES)
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("rows.jsonl")
        info.size = len(LINES)
        archive.addfile(info, io.BytesIO(LINES))
    return out.getvalue()


def flipped(data: bytes, place: int, bits: int = 0xFF) -> bytes:
    return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :]


def replaced(data: bytes, old: str, new: bytes) -> bytes:
    assert len(old) == len(new)
    assert old.encode() in data
    return data.replace(old.encode(), new, 1)


CASES: dict[str, tuple[str, bytes, list[str]]] = {
    # gzip and zstd
    "gzip: cut": ("f", gzip.compress(LINES)[:-30], ["f: the gzip file is cut off; copy it again"]),
    "gzip: cut inside its trailer": ("f", gzip.compress(LINES)[:-3], ["f: the gzip file is cut off; copy it again"]),
    "gzip: cut inside its header": ("f", gzip.compress(LINES)[:5], ["f: the gzip file is cut off; copy it again"]),
    "gzip: damaged": (
        "f",
        flipped(gzip.compress(LINES), 40),
        ["f: the gzip data are damaged; copy it again"],
    ),
    "gzip: wrong checksum": (
        "f",
        flipped(gzip.compress(LINES), -6 % len(gzip.compress(LINES))),
        ["f: the gzip data are damaged; copy it again"],
    ),
    "gzip: something follows": (
        "f",
        gzip.compress(LINES) + SECRET.encode(),
        ["f: something else follows the gzip data; copy it again"],
    ),
    "gzip: empty": ("f", gzip.compress(b""), [f"f: no rows; {_SHAPE}"]),
    "gzip: blank": ("f.csv.gz", gzip.compress(b" \n" * 100_000), [f"f.csv.gz: no rows; {_SHAPE}"]),
    "gzip: twice": ("f", gzip.compress(gzip.compress(LINES)), ["f: compressed twice; decompress it once"]),
    "gzip: around zstd": ("f", gzip.compress(zstd(LINES)), ["f: compressed twice; decompress it once"]),
    "gzip: of a tar": ("f.tar.gz", gzip.compress(tarred()), [f"f.tar.gz: is a tar archive; {_UNPACK}"]),
    "gzip: byte order mark": (
        "f",
        gzip.compress(b"\xef\xbb\xbf" + LINES),
        ["f:1: starts with a byte order mark; save the file as UTF-8 without one"],
    ),
    "gzip: a bad row and a cut end": (
        "f",
        gzip.compress(b"7\n" + LINES)[:-5],
        ["f: the gzip file is cut off; copy it again", f"f:1: a row must be a JSON object, not a number; {_SHAPE}"],
    ),
    "gzip: cut array": (
        "f",
        gzip.compress(b"[" + b",".join(LINES.splitlines()) + b"]")[:-5],
        ["f: the gzip file is cut off; copy it again"],
    ),
    "gzip: cut CSV": ("f.csv", gzip.compress(CSV * 2000)[:-5], ["f.csv: the gzip file is cut off; copy it again"]),
    "gzip: cut Parquet": ("f", gzip.compress(PARQUET)[:-5], ["f: the gzip file is cut off; copy it again"]),
    "gzip: cut Arrow": ("f", gzip.compress(ARROW_STREAM)[:-5], ["f: the gzip file is cut off; copy it again"]),
    "zstd: cut": ("f", zstd(LINES)[:-20], ["f: the zstd file is cut off; copy it again"]),
    "zstd: cut inside its header": ("f", zstd(LINES)[:5], ["f: the zstd file is cut off; copy it again"]),
    "zstd: damaged": ("f", flipped(zstd(LINES), 5, 0x06), ["f: the zstd data are damaged; copy it again"]),
    "zstd: something follows": (
        "f",
        zstd(LINES) + SECRET.encode(),
        ["f: something else follows the zstd data; copy it again"],
    ),
    "zstd: a window too large": (
        "f",
        b"\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00",
        ["f: the zstd file needs a window of more than 128 MiB; compress it without `--long`"],
    ),
    "zstd: empty": ("f", zstd(b""), [f"f: no rows; {_SHAPE}"]),
    # files that hold no rows
    "Excel": (
        "f.xlsx",
        zipped("[Content_Types].xml", "xl/a.xml"),
        [f"f.xlsx: is an Excel or Word document; {_EXPORT}"],
    ),
    "old Excel": ("f.xls", b"\xd0\xcf\x11\xe0\xa1\xb1", [f"f.xls: is an old Excel or Word document; {_EXPORT}"]),
    "zip": ("f.jsonl", zipped("rows.jsonl"), [f"f.jsonl: is a zip archive; {_UNPACK}"]),
    "zip of nothing": ("f", zipped(), [f"f: is an empty zip archive; {_UNPACK}"]),
    "tar": ("f", tarred(), [f"f: is a tar archive; {_UNPACK}"]),
    "pickle": ("f.pkl", pickle.dumps([{"a": SECRET}]), [f"f.pkl: is a pickle, which can run code; {_EXPORT}"]),
    "bzip2": ("f", b"BZh91AY&SY", ["f: is compressed by bzip2; use gzip or zstd"]),
    "xz": ("f", b"\xfd7zXZ\x00\x00", ["f: is compressed by xz; use gzip or zstd"]),
    "SQLite": ("f.db", b"SQLite format 3\x00", [f"f.db: is an SQLite database; {_EXPORT}"]),
    "git-lfs pointer": (
        "f.jsonl",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        ["f.jsonl: is the pointer that git-lfs leaves, not the file; run `git lfs pull` where it lies"],
    ),
    "web page": (
        "f.csv",
        f"\n<!DOCTYPE html><html>{SECRET}".encode(),
        ["f.csv: is a web page, not data; download the file itself, perhaps with a token"],
    ),
    # one object around the rows
    "object around rows": (
        "f.json",
        json.dumps({"version": "1", "data": [json.loads(ROW)] * 3}, indent=2).encode(),
        ["f.json:1: data: one JSON object around all rows; write the list alone"],
    ),
    "object around rows on one line": (
        "f.json",
        json.dumps({"rows": [json.loads(ROW)] * 3}).encode(),
        ["f.json:1: rows: one JSON object around all rows; write the list alone"],
    ),
    "object around rows on a very long line": (
        "f.json",
        b'{"train": [' + ROW.encode() + b", " * MAX_ROW_BYTES + b"]}",
        ["f.json:1: train: one JSON object around all rows; write the list alone"],
    ),
    # CSV
    "CSV: empty": ("f.csv", b"", [f"f.csv: no rows; {_SHAPE}"]),
    "CSV: header alone": ("f.csv", b"a,b\n\n", ["f.csv: no rows; only the line with the column names is there"]),
    "CSV: no header": (
        "f.csv",
        f"{SECRET},{SECRET}\nb,c\n".encode(),
        [f"f.csv:1: columns 1 and 2 have the same name; {_FIRST}, each once"],
    ),
    "CSV: a text for a header": (
        "f.csv",
        f'a,"{SECRET}\n{SECRET}"\nb,c\n'.encode(),
        [f"f.csv:1: the name of column 2 is longer than 100 characters or has a line break; {_FIRST}"],
    ),
    "CSV: an index": (
        "f.csv",
        b",a\n0,b\n",
        ["f.csv:1: column 1 has no name; name it, or write the file without an index"],
    ),
    "CSV: a column without a name": ("f.csv", b"\n\na, \n0,b\n", ["f.csv:3: column 2 has no name; name it"]),
    "CSV: semicolons": (
        "f.csv",
        f"prompt;completion\n{SECRET};{SECRET}\n".encode(),
        ["f.csv:1: one column, whose name has semicolons in it; separate columns by commas"],
    ),
    "TSV: commas": ("f.tsv", CSV, ["f.tsv:1: one column, whose name has commas in it; separate columns by tabs"]),
    "CSV: JSON": ("f.csv", LINES, ["f.csv:1: JSON, not column names; name the file .jsonl"]),
    "CSV: too few and too many fields": (
        "f.csv",
        CSV + f'"{SECRET}\n{SECRET}"\n\na,b,{SECRET}\n  \n'.encode(),
        [
            f"f.csv:3: 1 field, but 2 columns; {_QUOTE}",
            f"f.csv:6: 3 fields, but 2 columns; {_QUOTE}",
            f"f.csv:7: 1 field, but 2 columns; {_QUOTE}",
        ],
    ),
    "CSV: a quote is not closed": (
        "f.csv",
        CSV + f'a,"{SECRET}\n{SECRET}\n'.encode(),
        ["f.csv:3: a quote is not closed; look for it on this line and after it"],
    ),
    "CSV: a quote is closed much later": (
        "f.csv",
        CSV + f'a,"{SECRET}\n\nb,"{SECRET}"\n'.encode(),
        ["f.csv:3: text after a closing quote; double the quotes inside a field; look at lines 3 to 5"],
    ),
    "CSV: quotes that are not doubled": (
        "f.csv",
        CSV + f'a,"a "{SECRET}" b"\n'.encode(),
        ["f.csv:3: text after a closing quote; double the quotes inside a field; look at this line"],
    ),
    "CSV: an endless quote": (
        "f.csv",
        CSV + b'a,"' + f"{SECRET}\n".encode() * (MAX_ROW_BYTES // 4),
        ["f.csv:3: longer than 8 MiB; look for a quote that is not closed"],
    ),
    "CSV: a long line": (
        "f.csv",
        CSV + b"a," + b"x" * MAX_ROW_BYTES,
        ["f.csv:3: longer than 8 MiB; look for a quote that is not closed"],
    ),
    "CSV: carriage returns alone": (
        "f.csv",
        CSV.replace(b"\n", b"\r"),
        ["f.csv:1: a carriage return that ends no line; end lines with \\n, or put the field into quotes"],
    ),
    "CSV: NUL": (
        "f.csv",
        CSV + b'"a\n\x00",b\n\n\x00,',
        ["f.csv:4: contains a NUL byte", "f.csv:6: contains a NUL byte"],
    ),
    "CSV: not UTF-8": (
        "f.csv",
        CSV + f"a,é{SECRET}".encode("latin-1") + b'\n"\n\xc3\xa9,\xff",b\n',
        ["f.csv:3: not UTF-8 (byte 3)", "f.csv:5: not UTF-8 (byte 4)"],
    ),
    "CSV: a header that is not UTF-8": ("f.csv", b"a,\xff\n" + CSV, ["f.csv:1: not UTF-8 (byte 3)"]),
    "CSV: byte order mark": (
        "f.csv",
        b"\xef\xbb\xbf" + CSV,
        ["f.csv:1: starts with a byte order mark; save the file as UTF-8 without one"],
    ),
    # Parquet and Arrow
    "Parquet: cut": ("f", PARQUET[:-100], ["f: the Parquet file is cut off or damaged; copy it again"]),
    "Parquet: its mark alone": ("f", PARQUET[:4], ["f: the Parquet file is cut off or damaged; copy it again"]),
    "Parquet: damaged footer": (
        "f",
        flipped(PARQUET, len(PARQUET) - 7),
        ["f: the Parquet file is cut off or damaged; copy it again"],
    ),
    "Parquet: damaged page": (
        "f",
        PARQUET[:40] + b"\xff" * 400 + PARQUET[440:],
        ["f: the Parquet file is cut off or damaged; copy it again"],
    ),
    "Parquet: no rows": ("f", parquet(TABLE.slice(0, 0)), ["f: no rows; the table is empty"]),
    "Parquet: bytes": (
        "f",
        parquet(pa.table({"a": [SECRET], "picture": [b"xyzzy"]})),
        [f"f: picture: holds bytes (an image or sound?), not text; {_TEXT}"],
    ),
    "Parquet: an image of `datasets`": (
        "f",
        parquet(pa.table({"image": [{"bytes": b"xyzzy", "path": SECRET}]})),
        [f"f: image: holds bytes (an image or sound?), not text; {_TEXT}"],
    ),
    "Parquet: durations": (
        "f",
        parquet(pa.table({"took": pa.array([1], pa.duration("s"))})),
        [f"f: took: has the type DurationType, not text; {_TEXT}"],
    ),
    "Parquet: a column twice": (
        "f",
        parquet(pa.Table.from_arrays([pa.array([SECRET])] * 2, ["a" * 40] * 2)),
        ["f: the name `" + "a" * 30 + "` stands twice; rename one of them"],
    ),
    "Parquet: a long row": (
        "f",
        parquet(pa.table({"a": [SECRET, "x" * (MAX_ROW_BYTES + 1)]})),
        ["f:2: longer than 8 MiB"],
    ),
    "Parquet: not UTF-8": (
        "f",
        replaced(
            parquet(pa.table({"a": ["a", SECRET]}), compression="none", use_dictionary=False, write_statistics=False),
            SECRET,
            b"\xffyzzy",
        ),
        ["f:2: not UTF-8"],
    ),
    "Arrow file: cut": ("f", ARROW_FILE[:-100], ["f: the Arrow file is cut off or damaged; copy it again"]),
    "Arrow file: its mark alone": ("f", ARROW_FILE[:8], ["f: the Arrow file is cut off or damaged; copy it again"]),
    "Arrow file: no rows": ("f", arrow(TABLE.slice(0, 0), "file"), ["f: no rows; the table is empty"]),
    "Arrow stream: cut between batches": (
        "f",
        ARROW_STREAM[:-8],
        ["f: the Arrow stream has no end mark: it is cut off; copy it again"],
    ),
    "Arrow stream: cut inside its schema": (
        "f",
        ARROW_STREAM[:6],
        ["f: the Arrow stream has no end mark: it is cut off; copy it again"],
    ),
    "Arrow stream: a hole in it": (
        "f",
        ARROW_STREAM[: len(ARROW_STREAM) // 2] + ARROW_STREAM[-8:],
        ["f:401: the Arrow file is cut off or damaged; copy it again"],
    ),
    "Arrow stream: damaged schema": (
        "f",
        flipped(ARROW_STREAM, 30),
        ["f: the Arrow file is cut off or damaged; copy it again"],
    ),
    "Arrow stream: no rows": ("f", arrow(TABLE.slice(0, 0), "stream"), ["f: no rows; the table is empty"]),
    "Arrow stream: not UTF-8": (
        "f",
        replaced(ARROW_STREAM, f"{SECRET} 150", b"\xc3yzzy 150"),
        ["f:151: not UTF-8"],
    ),
    "Arrow stream: bytes in a list": (
        "f",
        table("sounds", pa.array([[b"xyzzy"]]))["stream"],
        [f"f: sounds: holds bytes (an image or sound?), not text; {_TEXT}"],
    ),
    "Arrow file: broken JSON": (
        "f",
        table("j", pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", '{"xyzzy"'])))["file"],
        ["f:2: holds JSON that cannot be read"],
    ),
    "Arrow file: a key twice": (
        "f",
        table("m", pa.array([[(SECRET, 1), (SECRET, 2)]], pa.map_(pa.string(), pa.int8())))["file"],
        ["f:1: the same key twice in one map"],
    ),
    "Arrow file: a map from numbers": (
        "f",
        table("m", pa.array([[(1, SECRET)]], pa.map_(pa.int8(), pa.string())))["file"],
        [f"f: m: has the type MapType, not text; {_TEXT}"],
    ),
    "Arrow file: a name twice in a struct": (
        "f",
        table("s", pa.StructArray.from_arrays([pa.array([SECRET])] * 2, ["k", "k"]))["file"],
        ["f: s: the name `k` stands twice; rename one of them"],
    ),
}


def messages(path: Path, name: str) -> list[str]:
    with pytest.raises(DataError) as caught:
        for _ in read_rows(path, name=name):
            pass
    assert caught.value.exit_code == 65
    return str(caught.value).splitlines()


@pytest.mark.parametrize(("name", "data", "lines"), CASES.values(), ids=CASES)
def test_every_mistake_is_named(tmp_path: Path, name: str, data: bytes, lines: list[str]) -> None:
    path = tmp_path / "rows"
    path.write_bytes(data)

    found = messages(path, name)

    assert found == lines
    assert SECRET not in "".join(found)


def test_what_may_be_left_out_and_what_not(tmp_path: Path) -> None:
    """A row that cannot be used may be skipped; what loses an unknown number of rows may not."""
    fatal: dict[str, bool] = {}
    for case, (name, data, _) in CASES.items():
        (tmp_path / "rows").write_bytes(data)
        problems = [row for row in scan_rows(tmp_path / "rows", name=name) if isinstance(row.value, Problem)]
        assert not any(row.fatal for row in problems[:-1]), case
        fatal[case] = problems[-1].fatal

    assert sorted(case for case, it_is in fatal.items() if not it_is) == [
        "Arrow file: a key twice",
        "Arrow file: broken JSON",
        "Arrow stream: not UTF-8",
        "CSV: NUL",
        "CSV: not UTF-8",
        "CSV: too few and too many fields",
        "Parquet: a long row",
        "Parquet: not UTF-8",
    ]


def test_a_large_array_is_refused_also_when_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftjob.data.json_rows.MAX_ARRAY_BYTES", 2**20)
    path = tmp_path / "rows"
    for data in (array := b"[" + ROW.encode() + b" " * 2**20 + b"]", gzip.compress(array), zstd(array)):
        path.write_bytes(data)
        assert messages(path, "f") == ["f: a JSON array of more than 1 MiB; write one JSON object a line"]


def test_a_table_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftjob.data.sources.MAX_UNPACKED_BYTES", 1000)
    monkeypatch.setattr("sftjob.data.sources._COPY_BYTES", 100)
    path = tmp_path / "rows"
    path.write_bytes(gzip.compress(PARQUET))

    assert messages(path, "f") == [
        "f: more than 0 GiB when decompressed; decompress it, or write Parquet with a compression of its own"
    ]


def test_the_file_system_s_own_errors_are_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_disk(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    (tmp_path / "rows").write_bytes(gzip.compress(LINES))
    monkeypatch.setattr("gzip.GzipFile.read1", broken_disk)
    with pytest.raises(OSError, match="Input/output error"):
        list(scan_rows(tmp_path / "rows", name="f"))

    (tmp_path / "rows").write_bytes(PARQUET)
    monkeypatch.setattr(table_rows, "check_schema", broken_disk)
    with pytest.raises(OSError, match="Input/output error"):
        list(scan_rows(tmp_path / "rows", name="f"))
