"""Whatever a file is and however it is compressed, its rows come out with the line on which each one starts."""

import csv
import datetime
import decimal
import gzip
import io
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest

from sftjob.data.sources import MAX_ROW_BYTES, RawRow, read_rows, scan_rows
from sftjob.errors import InputMissing, Problem

ROWS: list[dict[str, object]] = [
    {"prompt": "one,", "completion": "uno"},
    {"prompt": 'two\nlines of "text"', "completion": "dos\r\nlíneas"},
    {"prompt": "three\tor more", "completion": ""},
]


def json_lines(rows: list[dict[str, object]]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def separated(rows: list[dict[str, object]], separator: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet(rows: list[dict[str, object]] | pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, out, **options)
    return out.getvalue()


def arrow(rows: list[dict[str, object]] | pa.Table, kind: str, batch_rows: int = 2) -> bytes:
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    out = io.BytesIO()
    new = pyarrow.ipc.new_file if kind == "file" else pyarrow.ipc.new_stream
    with new(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


PLAIN: Mapping[str, tuple[bytes, list[int]]] = {
    "f.jsonl": (json_lines(ROWS), [1, 2, 3]),
    "f.json": (json.dumps(ROWS, indent=1).encode(), [2, 6, 10]),
    "f.csv": (separated(ROWS, ","), [2, 3, 6]),
    "f.tsv": (separated(ROWS, "\t"), [2, 3, 6]),
    "f.parquet": (parquet(ROWS), [1, 2, 3]),
    "f.feather": (arrow(ROWS, "file"), [1, 2, 3]),
    "f.arrow": (arrow(ROWS, "stream"), [1, 2, 3]),
}
COMPRESSED: Mapping[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstd,
    " in two members.gz": lambda data: gzip.compress(data[:20]) + gzip.compress(data[20:]),
    " in two frames.zst": lambda data: zstd(data[:20]) + zstd(data[20:]),
}


def scan(path: Path, data: bytes, *, name: str | None = None) -> list[RawRow]:
    path.write_bytes(data)
    return list(scan_rows(path, name=name or path.name))


def values(rows: list[RawRow]) -> list[object]:
    return [row.value for row in rows]


def parts(path: Path, table: pa.Table) -> Iterator[list[RawRow]]:
    """The same table by way of each kind of file."""
    yield scan(path, parquet(table))
    yield scan(path, arrow(table, "file"))
    yield scan(path, arrow(table, "stream"))


class TestEveryKind:
    @pytest.mark.parametrize("suffix", COMPRESSED)
    @pytest.mark.parametrize("name", PLAIN)
    def test_rows_and_lines(self, tmp_path: Path, name: str, suffix: str) -> None:
        data, lines = PLAIN[name]

        rows = scan(tmp_path / f"{name}{suffix}", COMPRESSED[suffix](data), name=name)

        assert values(rows) == ROWS
        assert [row.line for row in rows] == lines
        assert [row.index for row in rows] == ([0, 1, 2] if name == "f.json" else [None] * 3)

    @pytest.mark.parametrize("name", [name for name in PLAIN if name[-3:] not in ("csv", "tsv")])
    def test_content_decides_and_not_the_name(self, tmp_path: Path, name: str) -> None:
        data, _ = PLAIN[name]

        assert values(scan(tmp_path / "rows.txt", data)) == ROWS
        assert values(scan(tmp_path / "rows.txt", gzip.compress(data))) == ROWS

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("a", "dir.d/f.csv"),
            ("a", "s3://bucket/f.CSV"),
            ("a", "f.csv.gz"),
            ("a", "f.csv.zst"),
            ("a.csv", "the rows"),
            ("a.csv.gz", "the rows"),
            ("a.b.csv.zstd", "the rows"),
        ],
    )
    def test_names_that_tell_csv(self, tmp_path: Path, path: str, name: str) -> None:
        assert values(scan(tmp_path / path, PLAIN["f.csv"][0], name=name)) == ROWS

    @pytest.mark.parametrize("magic", ["f.parquet", "f.arrow", "f.feather"])
    def test_a_table_that_is_called_csv(self, tmp_path: Path, magic: str) -> None:
        assert values(scan(tmp_path / "f.csv", PLAIN[magic][0])) == ROWS

    def test_read_rows(self, tmp_path: Path) -> None:
        (tmp_path / "f.csv").write_bytes(PLAIN["f.csv"][0])

        assert list(read_rows(tmp_path / "f.csv", name="f.csv")) == list(zip([2, 3, 6], ROWS, strict=True))


class TestJson:
    def test_many_blanks_come_first(self, tmp_path: Path) -> None:
        rows = scan(tmp_path / "f", b"\n" * 200_000 + b'{"a": 1}')

        assert rows == [RawRow(200_001, None, {"a": 1})]
        assert values(scan(tmp_path / "f", b" " * 200_000 + b'[{"a": 1}]')) == [{"a": 1}]

    @pytest.mark.parametrize(
        "text",
        [
            '{"data": [{"role": "user", "content": "a"}]}',  # one row with its messages
            '{"data": [{"a": 1}]}\n{"data": [{"a": 2}]}',
            '{"data": ["a", "b"]}',
            '{"data": []}',
            '{"data": "[{"}'.replace("[{", "[1"),
            '{"more": [{"a": 1}]}',
        ],
    )
    def test_rows_that_have_a_column_data(self, tmp_path: Path, text: str) -> None:
        assert values(scan(tmp_path / "f", text.encode())) == [json.loads(line) for line in text.splitlines()]


class TestCsv:
    def scan(self, tmp_path: Path, text: str, name: str = "f.csv") -> list[RawRow]:
        return scan(tmp_path / name, text.encode())

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\r\n\r\n \n"[:4]])
    def test_line_ends_and_blank_lines(self, tmp_path: Path, end: str) -> None:
        rows = self.scan(tmp_path, f"a,b{end}1,2{end}3,4")

        lines = end.count("\n")
        assert rows == [
            RawRow(1 + lines, None, {"a": "1", "b": "2"}),
            RawRow(1 + 2 * lines, None, {"a": "3", "b": "4"}),
        ]

    def test_quotes(self, tmp_path: Path) -> None:
        rows = self.scan(tmp_path, '"a","b"\n"x ""y"", z","\n\n"\n, "kept" \n')

        assert rows == [
            RawRow(2, None, {"a": 'x "y", z', "b": "\n\n"}),
            RawRow(5, None, {"a": "", "b": ' "kept" '}),
        ]

    def test_fields_longer_than_the_reader_allows_by_itself(self, tmp_path: Path) -> None:
        text = "x" * 200_000

        assert values(self.scan(tmp_path, f"a,b\n{text},{text}\n")) == [{"a": text, "b": text}]

    def test_values_are_text(self, tmp_path: Path) -> None:
        rows = self.scan(tmp_path, "a\tb\tc\n1\tnull\tNaN\n", "f.tsv")

        assert values(rows) == [{"a": "1", "b": "null", "c": "NaN"}]

    def test_good_rows_around_bad_ones(self, tmp_path: Path) -> None:
        rows = scan(tmp_path / "f.csv", b'a,b\n1,2\n3\n"\xff\n",\n"\n\x00",\n5,6\n')

        assert [(row.line, isinstance(row.value, Problem), row.fatal) for row in rows] == [
            (2, False, False),
            (3, True, False),
            (4, True, False),
            (6, True, False),
            (8, False, False),
        ]


class TestTables:
    def test_nested_values(self, tmp_path: Path) -> None:
        rows: list[dict[str, object]] = [
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}], "n": 1},
            {"messages": [], "n": None},
            {"messages": None, "n": 3},
        ]
        for found in parts(tmp_path / "f", pa.Table.from_pylist(rows)):
            assert values(found) == rows

    def test_types(self, tmp_path: Path) -> None:
        moment = datetime.datetime(2024, 2, 3, 4, 5, 6, 7)
        table = pa.table(
            {
                "large": pa.array(["a"], pa.large_string()),
                "category": pa.array(["b"]).dictionary_encode(),
                "flag": [True],
                "number": [1.5],
                "half": pa.array([0.5], pa.float16()),
                "null": pa.array([None], pa.null()),
                "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
                "fixed": pa.array([["c", "d"]], pa.list_(pa.string(), 2)),
                "date": [datetime.date(2024, 2, 3)],
                "moment": pa.array([moment], pa.timestamp("us")),
                "utc": pa.array([moment], pa.timestamp("us", "UTC")),
                "zone": pa.array([moment], pa.timestamp("us", "America/New_York")),
                "decimal": [decimal.Decimal("1.20")],
                "times": pa.array([[{"at": datetime.time(1, 2)}]]),
            }
        )
        for found in parts(tmp_path / "f", table):
            assert values(found) == [
                {
                    "large": "a",
                    "category": "b",
                    "flag": True,
                    "number": 1.5,
                    "half": 0.5,
                    "null": None,
                    "map": {"k": 1},
                    "fixed": ["c", "d"],
                    "date": "2024-02-03",
                    "moment": "2024-02-03 04:05:06.000007",
                    "utc": "2024-02-03 04:05:06.000007Z",
                    "zone": "2024-02-03 04:05:06.000007Z",
                    "decimal": "1.20",
                    "times": [{"at": "01:02:00.000000"}],
                }
            ]

    def test_keys_that_only_other_rows_have_are_left_out(self, tmp_path: Path) -> None:
        calls: list[dict[str, object]] = [
            {"calls": [{"name": "a", "arguments": {"city": "x"}}], "more": None},
            {"calls": [{"name": "b", "arguments": {"n": 1, "deep": [{"k": 2}, {"l": 3}]}}], "more": {"m": 4}},
        ]
        path = tmp_path / "f"
        path.write_bytes(parquet(calls))
        assert [row.value for row in scan_rows(path, name="f")] == calls

    def test_json_columns_are_parsed(self, tmp_path: Path) -> None:
        texts = pa.array(['{"a": 1}', "[true, null]", None])
        column = pa.ExtensionArray.from_storage(pa.json_(), texts)
        nested = pa.StructArray.from_arrays([column], ["inner"])
        listed = pa.ListArray.from_arrays(pa.array([0, 1, 1, 3], pa.int32()), column)
        table = pa.table({"plain": column, "nested": nested, "listed": listed})

        for kind in ("file", "stream"):
            assert values(scan(tmp_path / "f", arrow(table, kind))) == [
                {"plain": {"a": 1}, "nested": {"inner": {"a": 1}}, "listed": [{"a": 1}]},
                {"plain": [True, None], "nested": {"inner": [True, None]}, "listed": []},
                {"plain": None, "nested": {}, "listed": [[True, None], None]},
            ]

    def test_rows_are_counted_over_batches_and_row_groups(self, tmp_path: Path) -> None:
        rows: list[dict[str, object]] = [{"a": str(number)} for number in range(1000)]
        for data in (parquet(rows, row_group_size=300), arrow(rows, "file", 170), arrow(rows, "stream", 1000)):
            assert scan(tmp_path / "f", data) == [RawRow(number + 1, None, row) for number, row in enumerate(rows)]

    def test_good_rows_around_bad_ones(self, tmp_path: Path) -> None:
        table = pa.table({"a": ["x", "y" * (MAX_ROW_BYTES + 1), "z"]})
        for found in parts(tmp_path / "f", table):
            assert [(row.line, isinstance(row.value, Problem), row.fatal) for row in found] == [
                (1, False, False),
                (2, True, False),
                (3, False, False),
            ]


class TestMemory:
    def test_a_bomb_is_not_unpacked(self, tmp_path: Path) -> None:
        """A row of 256 MiB in a gzip file of 256 KiB."""
        squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
        block = b"x" * 2**22
        with (tmp_path / "bomb").open("wb") as out:
            out.write(squeeze.compress(b'{"a": "'))
            for _ in range(64):
                out.write(squeeze.compress(block))
            out.write(squeeze.flush())
        code = (
            "import re, sys; from pathlib import Path; from sftjob.data.sources import scan_rows; "
            "list(scan_rows(Path(sys.argv[1]), name=sys.argv[1])); "
            "print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])"
        )

        for name in ("bomb", "bomb.csv"):
            path = (tmp_path / "bomb").rename(tmp_path / name)
            done = subprocess.run(
                [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=60
            )
            path.rename(tmp_path / "bomb")

            assert int(done.stdout) < 100 * 1024  # the peak in KiB

    def test_pyarrow_waits_until_it_is_needed(self, tmp_path: Path) -> None:
        (tmp_path / "f.csv.gz").write_bytes(gzip.compress(b"a\n1\n"))
        code = (
            "import sys; from pathlib import Path; from sftjob.data.sources import scan_rows; "
            "list(scan_rows(Path(sys.argv[1]), name='f')); "
            "print([n for n in ('pyarrow', 'datasets', 'pandas', 'numpy') if n in sys.modules])"
        )

        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "f.csv.gz")], capture_output=True, text=True, check=True
        )

        assert done.stdout == "[]\n"


class TestMissing:
    def message(self, path: Path) -> str:
        with pytest.raises(InputMissing) as caught:
            list(scan_rows(path, name="f"))
        return str(caught.value)

    def test_no_file(self, tmp_path: Path) -> None:
        assert self.message(tmp_path / "f") == "f: no such file; check the path"

    def test_folder(self, tmp_path: Path) -> None:
        assert self.message(tmp_path) == "f: is a folder; name a data file in it"

    def test_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "f")

        assert self.message(tmp_path / "f") == "f: is not a regular file; write its rows to a file first"

    def test_unreadable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "f").write_bytes(b"")

        def refused(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refused)

        assert self.message(tmp_path / "f") == "f: may not be read; check the file's permissions"
