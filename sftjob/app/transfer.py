"""How far a transfer is, in a line now and then."""

import threading
import time
from collections.abc import Callable
from typing import Final

_EVERY_SECONDS: Final = 10.0


class Transfer:
    """Counts bytes, from several threads, and tells every ten seconds how many are through and how long is left."""

    def __init__(
        self, progress: Callable[[str], None], what: str, total: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._progress = progress
        self._what = what
        self._total = total
        self._clock = clock
        self._lock = threading.Lock()
        self._begin = self._told = clock()
        self._done = 0

    def add(self, size: int) -> None:
        """So many bytes more are through."""
        with self._lock:
            self._done += size
            now = self._clock()
            if now - self._told < _EVERY_SECONDS or self._done >= self._total:
                return
            self._told = now
            rate = self._done / (now - self._begin)
            left = (self._total - self._done) / rate
            when = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
            through = f"{as_bytes(self._done)} of {as_bytes(self._total)}"
            self._progress(f"{self._what}: {through}, {as_bytes(int(rate))}/s, {when} left")


def as_bytes(size: int) -> str:
    """A size for people: `512 B`, `3.4 MiB`, `1.2 GiB`."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} B"
