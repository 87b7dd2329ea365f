"""Tokens on disk: an Arrow IPC stream that `datasets.Dataset.from_file` reads, without pandas, in bounded memory."""

import mmap
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, Final, Self

import pyarrow as pa

from sftjob.data.encode import Block

BATCH_ROWS: Final = 1000
"""Rows of one record batch; bounds the memory that writing takes."""
_INT_BYTES: Final = 4
_LISTS: Final = pa.list_(pa.int32())
_SCHEMA: Final = pa.schema([("input_ids", _LISTS), ("labels", _LISTS)])
_PACKED_SCHEMA: Final = _SCHEMA.append(pa.field("seq_lengths", _LISTS))


class ArrowRows:
    """Writes `input_ids` and `labels`, and for packed rows `seq_lengths`: the lengths of a pack's rows, in order."""

    def __init__(self, path: Path, *, packed: bool = False) -> None:
        self._packed = packed
        self._file = path.open("wb")
        self._writer = pa.ipc.new_stream(self._file, _PACKED_SCHEMA if packed else _SCHEMA)
        self._begin()

    def write(self, input_ids: bytes, labels: bytes, lengths: Sequence[int]) -> None:
        """Adds one row, made of one or more sequences; tokens are int32."""
        self._ids += input_ids
        self._labels += labels
        self._lengths.extend(lengths)
        self._ends.append(self._ends[-1] + sum(lengths))
        self._counts.append(len(self._lengths))
        if len(self._counts) > BATCH_ROWS:
            self._flush()

    def write_block(self, block: Block) -> None:
        """Adds the rows of a block, each for itself."""
        for start, end in _ranges(block.lengths):
            self.write(block.input_ids[start:end], block.labels[start:end], ((end - start) // _INT_BYTES,))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        try:
            if failed is None:
                self._flush()
                self._writer.close()
        finally:
            self._file.close()

    def _begin(self) -> None:
        self._ids, self._labels = bytearray(), bytearray()
        self._lengths, self._ends, self._counts = array("i"), array("i", [0]), array("i", [0])

    def _flush(self) -> None:
        columns = [_lists(self._ids, self._ends), _lists(self._labels, self._ends)]
        if self._packed:
            columns.append(_lists(self._lengths, self._counts))
        schema = _PACKED_SCHEMA if self._packed else _SCHEMA
        self._writer.write_batch(pa.record_batch(columns, schema=schema))
        self._begin()


class TokenSpool:
    """Keeps the tokens of all rows in two files until it is known which of them share a pack."""

    def __init__(self, folder: Path) -> None:
        self.lengths = array("i")
        """Tokens of each row."""
        self._paths = folder / "input_ids.spool", folder / "labels.spool"
        self._files = [path.open("wb") for path in self._paths]

    def write_block(self, block: Block) -> None:
        """Adds the rows of a block."""
        for file, data in zip(self._files, (block.input_ids, block.labels), strict=True):
            file.write(data)
        self.lengths.extend(block.lengths)

    def write_packs(self, packs: Iterable[Sequence[int]], arrow: ArrowRows) -> None:
        """Writes rows by number, those of one pack as one row."""
        ranges = list(_ranges(self.lengths))
        with _mapped(self._paths[0]) as ids, _mapped(self._paths[1]) as labels:
            for pack in packs:
                places = [ranges[row] for row in pack]
                arrow.write(
                    b"".join(ids[start:end] for start, end in places),
                    b"".join(labels[start:end] for start, end in places),
                    [self.lengths[row] for row in pack],
                )

    def close_writing(self) -> None:
        """Call between the last `write_block` and `write_packs`."""
        for file in self._files:
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_writing()
        for path in self._paths:
            path.unlink(missing_ok=True)


def _ranges(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Bytes [start, end) of each row."""
    ends = accumulate(length * _INT_BYTES for length in lengths)
    return ((end - length * _INT_BYTES, end) for end, length in zip(ends, lengths, strict=True))


def _lists(values: "bytearray | array[int]", ends: "array[int]") -> pa.ListArray:
    """Made of buffers: `pa.array` would import pandas, which takes longer than tokenising a small data set."""
    flat = pa.Array.from_buffers(pa.int32(), ends[-1], [None, pa.py_buffer(values)])
    return pa.Array.from_buffers(_LISTS, len(ends) - 1, [None, pa.py_buffer(ends)], children=[flat])


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap | bytes]:
    with path.open("rb") as file:
        yield from _map(file)


def _map(file: BinaryIO) -> Iterator[mmap.mmap | bytes]:
    try:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # an empty file cannot be mapped
        yield b""
        return
    with mapped:
        yield mapped
