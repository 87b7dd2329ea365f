"""How rows are put together so that little of a batch is filler."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Called with rows done and rows in all."""


def batches_by_length(rows: Sequence[T], batch_size: int, length: Callable[[T], int]) -> Iterator[list[int]]:
    """Indices of rows in batches of similar length, the longest first: what does not fit into memory shows at once."""
    order = sorted(range(len(rows)), key=lambda index: -length(rows[index]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
