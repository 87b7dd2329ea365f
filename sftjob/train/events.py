"""TensorBoard's closed event files on their way to the store. Each is uploaded once and whole."""

from pathlib import Path

from sftjob.contract import keys
from sftjob.storage.base import ObjectStore


class EventFiles:
    """Uploads what has been moved into a folder since the last time. One thread uses it at a time."""

    def __init__(self, store: ObjectStore, folder: Path, *, attempt: int) -> None:
        self._store = store
        self._folder = folder
        self._attempt = attempt
        self._uploaded: set[str] = set()

    def upload(self) -> None:
        """After a failed upload the same bytes are sent again under the same key, since closed files never change."""
        if not self._folder.is_dir():
            return
        for path in sorted(self._folder.iterdir()):
            if path.name not in self._uploaded:
                key = keys.events(self._attempt, path.name)
                self._store.put_bytes(key, path.read_bytes(), if_absent=True)
                self._uploaded.add(path.name)
