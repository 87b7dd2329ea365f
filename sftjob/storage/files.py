"""Folders to and from a store: every file hashed, nothing half-written, no way out of the folder."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from sftjob.errors import DiskFull, StorageError
from sftjob.records import FileEntry
from sftjob.storage.base import ObjectStore, check_key
from sftjob.storage.local import local_errors
from sftjob.storage.threads import in_order

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all, from the calling thread."""
_THREADS: Final = 2
"""Files at a time. A large file travels in several parts at once already."""


def upload_folder(
    store: ObjectStore, folder: Path, key_prefix: str, *, on_progress: Progress | None = None
) -> tuple[FileEntry, ...]:
    """Uploads every file below a folder.

    Returns:
        One entry a file, sorted by path; `key` is `key_prefix` and the path.

    Raises:
        StorageError: a symbolic link or another thing that is no file, or a file that changed meanwhile.
    """
    return upload_files(store, folder, list_files(folder), key_prefix, on_progress=on_progress)


def upload_files(
    store: ObjectStore,
    folder: Path,
    files: Iterable[Path],
    key_prefix: str,
    *,
    on_progress: Progress | None = None,
) -> tuple[FileEntry, ...]:
    """`upload_folder` for some of a folder's files: a node of several uploads what it has written."""
    paths = sorted(files)
    with local_errors(folder):
        total = sum(path.stat().st_size for path in paths)

    def upload(path: Path) -> FileEntry:
        name = check_key(path.relative_to(folder).as_posix())
        sha256, size = _hash_and_size(path)
        key = f"{key_prefix.rstrip('/')}/{name}"
        store.put_file(key, path, sha256=sha256)
        return FileEntry(path=name, key=key, size=size, sha256=sha256)

    return tuple(_counted(in_order(upload, paths, threads=_THREADS), total, on_progress))


def fetch_files(
    store: ObjectStore, entries: Sequence[FileEntry], into: Path, *, on_progress: Progress | None = None
) -> None:
    """Downloads files into a folder, which is replaced as a whole once every size and hash was right.

    Raises:
        StorageError: an entry's path leads out of the folder or is there twice, or a file is damaged; it is named.
        NotFound: an object is missing.
        DiskFull: the files do not fit; nothing was fetched.
    """
    paths = [check_key(entry.path) for entry in entries]
    if len(set(paths)) != len(paths):
        raise StorageError("the list of files names a path twice", file=_first_double(paths))
    partial = into.with_name(f".{into.name}.partial")
    total = sum(entry.size for entry in entries)

    def fetch(entry: FileEntry) -> FileEntry:
        store.get_file(entry.key, partial / entry.path, size=entry.size, sha256=entry.sha256)
        return entry

    with local_errors(into):
        # What a killed process has left; the name is fixed so that such leftovers cannot pile up.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            _check_space(partial, total)
            for _ in _counted(in_order(fetch, entries, threads=_THREADS), total, on_progress):
                pass
            _replace_folder(partial, into)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def list_files(folder: Path) -> list[Path]:
    """All files below a folder, hidden ones too, sorted.

    Raises:
        StorageError: the folder is not there, or holds a symbolic link or another thing that is no file.
    """
    if not folder.is_dir():
        raise StorageError("no such folder", file=str(folder))
    with local_errors(folder):
        found = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
    for path in found:
        if path.is_symlink() or not path.is_file():
            raise StorageError("not a plain file", file=str(path), hint="replace links by what they point to")
    return found


def hash_file(path: Path) -> str:
    """SHA-256 of a file in hex."""
    return _hash_and_size(path)[0]


def _hash_and_size(path: Path) -> tuple[str, int]:
    with local_errors(path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, file.tell()


def _counted(entries: Iterable[FileEntry], total: int, on_progress: Progress | None) -> Iterable[FileEntry]:
    done = 0
    for entry in entries:
        done += entry.size
        if on_progress:
            on_progress(done, total)
        yield entry


def _first_double(paths: list[str]) -> str:
    return next(path for path in paths if paths.count(path) > 1)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(f"{needed} bytes do not fit into {free}", file=str(folder.parent), hint="use a larger volume")


def _replace_folder(new: Path, old: Path) -> None:
    aside = old.with_name(f".{old.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)
