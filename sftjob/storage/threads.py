"""A few transfers at a time, results in order, memory bounded."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def in_order(function: Callable[[T], U], items: Iterable[T], *, threads: int) -> Iterator[U]:
    """`map` with threads that holds at most `threads` items and results at a time.

    The first error in order ends it, after the calls under way have ended; items not yet begun are not taken.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="sftjob-storage") as pool:
        pending: deque[Future[U]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) == threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
