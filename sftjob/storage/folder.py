"""A folder of this machine as an object store: the same semantics as S3, for `sftjob run` and for tests."""

import errno
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from sftjob.errors import Exists, NotFound, SftjobError, StorageError
from sftjob.storage.base import HIDDEN, ObjectInfo, check_key
from sftjob.storage.local import copy, local_errors, placing, sync_folder

_ABSENT: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})
_STALE_SECONDS: Final = 60.0
_log = logging.getLogger(__name__)


class FolderStore:
    """Objects are files below `folder`. Unfinished files lie in its hidden folder and are never listed."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_absolute():
            raise StorageError("a folder store needs an absolute path", file=str(folder))
        self._folder = folder

    @property
    def uri(self) -> str:
        return self._folder.as_uri()

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        path = self._path(key)
        with local_errors(path), self._temporary() as (temporary, file):
            file.write(data)
            _finish(file)
            if not if_absent:
                _move_into_place(temporary, path)
            elif not _link_into_place(temporary, path) and _content(path, len(data)) != data:
                raise Exists("an object with other content is there already", file=self._name(key))

    def put_file(self, key: str, path: Path, *, sha256: str, on_sent: Callable[[int], None] | None = None) -> None:
        target = self._path(key)
        with local_errors(path):
            source = path.open("rb")
        with source, local_errors(target), self._temporary() as (temporary, file):
            size, found = copy(source, file)
            if found != sha256:
                raise StorageError(f"the file changed: its sha256 is {found}, not {sha256}", file=str(path))
            _finish(file)
            _move_into_place(temporary, target)
        if on_sent:
            on_sent(size)

    def get_bytes(self, key: str, *, max_bytes: int = 16 * 2**20) -> bytes:
        with self._open(key) as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise StorageError(f"{size} bytes are more than the {max_bytes} expected here", file=self._name(key))
            return file.read()

    def get_file(self, key: str, path: Path, *, size: int, sha256: str | None) -> None:
        with self._open(key) as source, placing(path) as file:
            found_size, found = copy(source, file)
            if found_size != size:
                raise StorageError(f"has {found_size} bytes instead of {size}", file=self._name(key))
            if sha256 not in (None, found):
                raise StorageError(f"has sha256 {found} instead of {sha256}", file=self._name(key))

    def head(self, key: str) -> ObjectInfo:
        with self._open(key) as file:
            return ObjectInfo(key=key, size=os.fstat(file.fileno()).st_size)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        parent = prefix.rpartition("/")[0]
        start = self._path(parent) if parent else self._folder
        with local_errors(start):
            found = [info for info in _walk(start, self._folder) if info.key.startswith(prefix)]
        return iter(sorted(found, key=lambda info: info.key))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with local_errors(path):
            with suppress(*_ABSENT):
                path.unlink()
            _remove_empty(path.parent, self._folder)

    def at(self, prefix: str) -> "FolderStore":
        return FolderStore(self._path(prefix.rstrip("/")))

    def abort_stale_uploads(self) -> int:
        hidden = self._folder / HIDDEN
        try:
            with local_errors(hidden):
                stale = [path for path in hidden.iterdir() if _untouched(path)] if hidden.is_dir() else []
                for path in stale:
                    path.unlink(missing_ok=True)
        except SftjobError as error:
            _log.warning("unfinished files stay: %s", error)
            return 0
        return len(stale)

    def _path(self, key: str) -> Path:
        path = self._folder / check_key(key)
        inside = path.parent.resolve().is_relative_to(self._folder.resolve())
        if not inside or path.is_symlink():
            raise StorageError("a symbolic link is no object of this store", file=self._name(key))
        return path

    def _name(self, key: str) -> str:
        return str(self._folder / key)

    @contextmanager
    def _open(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        with local_errors(path):
            try:
                file = path.open("rb")
            except _ABSENT as error:
                raise NotFound("no such object", file=self._name(key)) from error
        with file, local_errors(path):
            yield file

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Path, BinaryIO]]:
        hidden = self._folder / HIDDEN
        hidden.mkdir(parents=True, exist_ok=True)
        path = hidden / uuid.uuid4().hex
        try:
            with path.open("xb") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)


def _untouched(path: Path) -> bool:
    """Nobody is writing it any more; on several nodes peers may write already when the first one tidies up."""
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > _STALE_SECONDS
    return False


def _finish(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _move_into_place(temporary: Path, path: Path) -> None:
    _in_its_folder(path, lambda: temporary.replace(path))
    sync_folder(path.parent)


def _link_into_place(temporary: Path, path: Path) -> bool:
    """False where a file is there already: `link` is the one call that creates a name with its content, or fails."""
    try:
        _in_its_folder(path, lambda: path.hardlink_to(temporary))
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        raise StorageError(
            "this file system has no hard links, which claims and commits need",
            file=str(path),
            hint="keep runs on a Linux file system or in S3",
        ) from error
    sync_folder(path.parent)
    return True


def _in_its_folder(path: Path, action: Callable[[], object]) -> None:
    """Makes the folder and acts, again where a delete has removed the still empty folder between the two."""
    for _ in range(2):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            action()
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    action()


def _content(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size + 1)


def _walk(start: Path, root: Path) -> Iterator[ObjectInfo]:
    for folder, names, files in os.walk(start, onerror=_unless_absent):
        names[:] = [name for name in names if name != HIDDEN]
        for name in files:
            path = Path(folder, name)
            # An object that is deleted while we walk was never there.
            with suppress(FileNotFoundError):
                if not path.is_symlink():
                    stat = path.stat()
                    yield ObjectInfo(
                        path.relative_to(root).as_posix(),
                        stat.st_size,
                        version=f"{stat.st_mtime_ns}",
                        modified=datetime.fromtimestamp(stat.st_mtime, UTC),
                    )


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, _ABSENT):
        raise error


def _remove_empty(folder: Path, root: Path) -> None:
    try:
        while folder != root:
            with suppress(FileNotFoundError):
                folder.rmdir()
            folder = folder.parent
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
