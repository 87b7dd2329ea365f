"""Files on this machine: they appear whole or not at all, and their errors name a file and a repair."""

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from sftjob.errors import Denied, DiskFull, SftjobError, StorageError

CHUNK_BYTES: Final = 2**20
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextmanager
def placing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well; otherwise nothing is left of it.

    Raises:
        DiskFull: no space left.
        Denied: the folder may not be written.
        StorageError: any other error of the file system.
    """
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    with local_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("xb") as file:
                yield file
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def placing_folder(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` when the block ends well; otherwise nothing is left of it.

    Raises:
        DiskFull, Denied, StorageError: as `placing`.
    """
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    with local_errors(folder):
        try:
            partial.mkdir(parents=True)
            yield partial
            shutil.rmtree(folder, ignore_errors=True)
            partial.replace(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def local_errors(path: Path) -> Iterator[None]:
    """Turns an `OSError` of the block into the project's errors, naming `path`."""
    try:
        yield
    except OSError as error:
        raise _named(error, path) from error


def copy(source: BinaryIO, target: BinaryIO) -> tuple[int, str]:
    """Copies to the end; returns size in bytes and SHA-256 in hex of what was written."""
    digest = hashlib.sha256()
    size = 0
    while chunk := source.read(CHUNK_BYTES):
        target.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a loss of power; the files' own content needs an fsync of its own."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _named(error: OSError, path: Path) -> SftjobError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        return DiskFull(reason, file=str(path), hint="free space there or choose a larger volume")
    if error.errno in _REFUSED:
        return Denied(reason, file=str(path), hint="give this user the right to it or choose another folder")
    return StorageError(reason, file=str(path))
