"""The object store as the rest of the project sees it: a protocol, and how its keys are kept honest."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from sftjob.errors import NotFound, StorageError

HIDDEN: Final = ".sftjob"
"""A part of a key that stores keep to themselves: unfinished files of a folder store lie below it."""
_MAX_KEY_BYTES: Final = 1024
"""S3's limit: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html"""


@dataclass(frozen=True)
class ObjectInfo:
    """What a store tells of an object without its content."""

    key: str
    size: int
    """Bytes."""
    sha256: str | None = field(default=None, compare=False)
    """As whoever uploaded it has stored it beside it; only `head` tells, and not of every object."""
    version: str = field(default="", compare=False)
    """Another one means that the object was written again; only `list` tells."""
    modified: datetime | None = field(default=None, compare=False)
    """When it was written, by the store's clock; only `list` tells."""


class ObjectStore(Protocol):
    """Keys are POSIX paths below the store's own prefix. Every method is safe to call from several threads.

    Every method may raise `Denied` (credentials or permission; never mistaken for an absent object) and
    `Unavailable` (no answer inside the deadline, after retries with backoff).
    """

    @property
    def uri(self) -> str:
        """What a person calls this store, for messages: `s3://bucket/prefix` or `file:///folder`."""
        ...

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Writes an object in one request; readers see all of it or nothing.

        Raises:
            Exists: `if_absent` and another content is there. The same content counts as this call's own earlier try
                whose reply was lost.
        """
        ...

    def put_file(self, key: str, path: Path, *, sha256: str, on_sent: Callable[[int], None] | None = None) -> None:
        """Uploads a file.

        Args:
            key: of the object.
            path: of the file.
            sha256: that the file has, in hex.
            on_sent: is given the bytes of each part that has arrived, from the calling thread.

        Raises:
            StorageError: the bytes that were sent do not have this hash (the file changed meanwhile).
        """
        ...

    def get_bytes(self, key: str, *, max_bytes: int = 16 * 2**20) -> bytes:
        """Reads a small object.

        Raises:
            NotFound: no such object.
            StorageError: it is larger than `max_bytes`.
        """
        ...

    def get_file(self, key: str, path: Path, *, size: int, sha256: str | None) -> None:
        """Downloads an object and puts it in place only when size and hash are right; nothing is left otherwise.

        `sha256=None` checks the size alone: for objects that others have put there without telling their hash.

        Raises:
            NotFound: no such object.
            StorageError: another size or hash; the message names the key.
        """
        ...

    def head(self, key: str) -> ObjectInfo:
        """Raises `NotFound` where there is no such object."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with `prefix`, in ascending order of their keys."""
        ...

    def delete(self, key: str) -> None:
        """Deletes an object; an absent one is no error."""
        ...

    def at(self, prefix: str) -> "ObjectStore":
        """The same store seen from `prefix` on: `at("run-1").get_bytes("spec.json")`."""
        ...

    def abort_stale_uploads(self) -> int:
        """Removes what killed writers have left below this store's prefix and nobody can read: parts of uploads.

        Call it while nobody else writes below the prefix: after the claim, before peers join. It is housekeeping and
        fails no run: a store that refuses is only logged.

        Returns:
            How many uploads were removed.
        """
        ...


def check_key(key: str) -> str:
    """Returns the key when every store can keep it and no folder can be left through it.

    The same rule holds for `FileEntry.path`: manifests come from a store and are not trusted.

    Raises:
        StorageError: absolute, empty, with an empty, `.` or `..` part, a control character, or too long.
    """
    fault = _fault(key)
    if fault:
        raise StorageError(f"{key!r} is no usable object key: {fault}")
    return key


def _fault(key: str) -> str:
    parts = key.split("/")
    control = any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) < 0xE000 for letter in key)
    faults = {
        "it is absolute": key.startswith("/"),
        "it has an empty part": "" in parts,
        "it has a '.' or '..' part": "." in parts or ".." in parts,
        f"{HIDDEN!r} is reserved": HIDDEN in parts,
        "it has a control character": control,
        f"it is longer than {_MAX_KEY_BYTES} bytes": len(key.encode(errors="replace")) > _MAX_KEY_BYTES,
    }
    return next((fault for fault, found in faults.items() if found), "")


def exists(store: ObjectStore, key: str) -> bool:
    """Whether there is such an object; a refusal is raised, not taken for a no."""
    try:
        store.head(key)
    except NotFound:
        return False
    return True
