"""The object store as the rest of the project sees it: a protocol, and how its keys are kept honest."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class ObjectInfo:
    """What a store tells of an object without its content."""

    key: str
    size: int
    """Bytes."""


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

    def put_file(self, key: str, path: Path, *, sha256: str) -> None:
        """Uploads a file.

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

    def get_file(self, key: str, path: Path, *, size: int, sha256: str) -> None:
        """Downloads an object and puts it in place only when size and hash are right; nothing is left otherwise.

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
