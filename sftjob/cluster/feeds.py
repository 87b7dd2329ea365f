"""Several endless iterators read as one: watches and logs, each in a thread of its own."""

import queue
import threading
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")
_LIMIT: Final = 10_000
"""Items that wait to be read. A fast log then waits for a slow terminal instead of filling the memory."""


class Feeds(Generic[T]):
    """What arrives first is read first. The threads end with the process."""

    def __init__(self) -> None:
        self._arrived: queue.Queue[tuple[str, T] | _Ended] = queue.Queue(_LIMIT)
        self._running: set[str] = set()

    def add(self, name: str, items: Iterator[T]) -> None:
        """Reads from now on; the name tells feeds apart."""
        self._running.add(name)
        threading.Thread(target=self._read, args=(name, items), name=name, daemon=True).start()

    @property
    def running(self) -> frozenset[str]:
        """Names of the feeds whose end has not been read yet."""
        return frozenset(self._running)

    def get(self, timeout: float | None = None) -> tuple[str, T] | None:
        """The next item and its feed's name; None when a feed has ended or nothing came within `timeout` seconds.

        Raises:
            Exception: what a feed has raised.
        """
        try:
            found = self._arrived.get(timeout=timeout)
        except queue.Empty:
            return None
        if not isinstance(found, _Ended):
            return found
        self._running.discard(found.name)
        if found.error is not None:
            raise found.error
        return None

    def _read(self, name: str, items: Iterator[T]) -> None:
        error: Exception | None = None
        try:
            for item in items:
                self._arrived.put((name, item))
        except Exception as raised:
            error = raised
        self._arrived.put(_Ended(name, error))


class _Ended:
    def __init__(self, name: str, error: Exception | None) -> None:
        self.name, self.error = name, error
