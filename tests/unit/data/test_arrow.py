"""Tokens on disk: rows and packs come back as they went in, batch by batch."""

import struct
from pathlib import Path

import pyarrow as pa
import pytest

from sftjob.data import arrow
from sftjob.data.arrow import ArrowRows, TokenSpool
from sftjob.data.audit import SplitTally
from sftjob.data.encode import Block
from sftjob.data.problems import Problems


def _ints(*values: int) -> bytes:
    return struct.pack(f"{len(values)}i", *values)


def _block(*rows: tuple[int, ...]) -> Block:
    flat = [value for row in rows for value in row]
    return Block(
        input_ids=_ints(*flat),
        labels=_ints(*(-value for value in flat)),
        lengths=[len(row) for row in rows],
        texts=(),
        tally=SplitTally(),
        problems=Problems(),
    )


def _read(path: Path) -> tuple[list[dict[str, list[int]]], list[int]]:
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
        batches = list(reader)
    return [row for batch in batches for row in batch.to_pylist()], [batch.num_rows for batch in batches]


def test_rows_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "BATCH_ROWS", 2)
    with ArrowRows(tmp_path / "a") as file:
        file.write_block(_block((1, 2), (3,)))
        file.write_block(_block((4, 5, 6)))
    rows, batches = _read(tmp_path / "a")
    assert batches == [2, 1]
    assert rows == [
        {"input_ids": [1, 2], "labels": [-1, -2]},
        {"input_ids": [3], "labels": [-3]},
        {"input_ids": [4, 5, 6], "labels": [-4, -5, -6]},
    ]


def test_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "BATCH_ROWS", 1)
    with TokenSpool(tmp_path) as spool, ArrowRows(tmp_path / "a", packed=True) as file:
        spool.write_block(_block((1, 2), (3,)))
        spool.write_block(_block((4, 5, 6)))
        spool.close_writing()
        spool.write_packs([[2, 1], [0]], file)
    assert _read(tmp_path / "a")[0] == [
        {"input_ids": [4, 5, 6, 3], "labels": [-4, -5, -6, -3], "seq_lengths": [3, 1]},
        {"input_ids": [1, 2], "labels": [-1, -2], "seq_lengths": [2]},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_no_rows_at_all(tmp_path: Path) -> None:
    with TokenSpool(tmp_path) as spool, ArrowRows(tmp_path / "a", packed=True) as file:
        spool.close_writing()
        spool.write_packs([], file)
    assert _read(tmp_path / "a")[0] == []


def test_what_fails_is_not_finished(tmp_path: Path) -> None:
    def fail() -> None:
        with ArrowRows(tmp_path / "a") as file:
            file.write_block(_block((1, 2)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(pa.ArrowInvalid):
        _read(tmp_path / "a")
