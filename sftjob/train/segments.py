"""Metrics on their way to the store: immutable segments of whole lines, while the ranks still write."""

from pathlib import Path

from sftjob.contract import keys
from sftjob.storage.base import ObjectStore


class Segments:
    """Uploads what has been appended to a JSON Lines file since the last time. One thread uses it at a time."""

    def __init__(self, store: ObjectStore, path: Path, *, attempt: int) -> None:
        self._store = store
        self._path = path
        self._attempt = attempt
        self._offset = 0
        self._segment = 0
        self._pending = b""

    def upload(self) -> None:
        """Puts the new whole lines under the next segment's key; does nothing without any.

        A line that is still being written, or that a crash has cut, is left out. After a failed upload the same bytes
        are sent again under the same key: the first try may have arrived although its reply was lost.
        """
        self._pending = self._pending or self._whole_lines()
        if not self._pending:
            return
        self._store.put_bytes(keys.metrics(self._attempt, self._segment), self._pending, if_absent=True)
        self._offset += len(self._pending)
        self._segment += 1
        self._pending = b""

    def _whole_lines(self) -> bytes:
        if not self._path.exists():
            return b""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        return new[: new.rfind(b"\n") + 1]
