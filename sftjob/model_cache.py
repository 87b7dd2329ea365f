"""Base models in a folder that pods share: each is there whole or not at all, and is verified before it is used.

    <cache>/hub/…                    the hub library's own cache
    <cache>/models/<hash>/           files of a stored or pinned model, and `.sftjob.json`, which names their hashes
    <cache>/models/<hash>.lock       held by whoever fills it

Nothing is ever thrown out: whoever owns the volume does that.
"""

import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sftjob.errors import DiskFull, SftjobError
from sftjob.inputs import Progress, model_entries
from sftjob.spec import sha256_hex
from sftjob.spec.identity import canonical_json
from sftjob.storage.local import local_errors

_MANIFEST: Final = ".sftjob.json"
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def hub_folder(cache: Path) -> Path:
    """Where models of the hub are kept."""
    return cache / "hub"


def stored_key(uri: str, files: Iterable[tuple[str, int, str]]) -> str:
    """The cache's name for a model in a store: other files under the same URI are another model.

    Args:
        uri: of the store, with its endpoint where it has one.
        files: name, size and version of each.
    """
    return sha256_hex(canonical_json({"uri": uri, "files": [list(file) for file in sorted(files)]}))


def cached_model(
    cache: Path, key: str, fill: Callable[[Path], None], *, name: str, size: int, progress: Progress
) -> Path | None:
    """The folder of a model in the cache, which is filled first where the model is not there.

    Args:
        cache: the folder that pods share; it is made where it is not there.
        key: 64 hex digits that stand for the model's content.
        fill: puts the model's files into an empty folder, or raises.
        name: what a person calls the model.
        size: bytes that `fill` will write.
        progress: is given lines for people.

    Returns:
        The folder, which nobody may write to; None where the cache is full, cannot be written or does not work.

    Raises:
        SftjobError: whatever `fill` raises.
    """
    entry = cache / "models" / key
    try:
        if _whole(entry):
            progress(f"using {name} from the cache ({entry})")
            return entry
        with _locked(entry, name, progress) as alone:
            if _whole(entry):
                progress(f"using {name} from the cache ({entry}), where another pod has put it")
                return entry
            if entry.exists():
                progress(f"{name} in the cache is damaged and fetched again ({entry})")
            return _filled(entry, fill, size, alone=alone)
    except SftjobError as error:
        if not _of_cache(error, cache):
            raise
        progress(f"the cache {cache} cannot be used ({error.problems[0].reason}): fetching {name} without it")
        return None


def _whole(entry: Path) -> bool:
    """Whether a model is there with the files and hashes that it was put there with."""
    try:
        promised = json.loads((entry / _MANIFEST).read_bytes())
        return bool(promised == [list(file) for file in model_entries(entry)])
    except (OSError, ValueError):
        return False


@contextmanager
def _locked(entry: Path, name: str, progress: Progress) -> Iterator[bool]:
    """Keeps other pods from filling the same entry; False on a file system without locks.

    The kernel lets go of a lock when its holder ends, however that ends.
    """
    lock = entry.with_name(f"{entry.name}.lock")
    with local_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    with file:
        yield _lock(file.fileno(), lambda: progress(f"another pod is putting {name} into the cache; waiting for it"))


def _lock(descriptor: int, wait: Callable[[], None]) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        wait()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _filled(entry: Path, fill: Callable[[Path], None], size: int, *, alone: bool) -> Path:
    with local_errors(entry):
        if alone:
            # What a killed pod has left: nobody else is filling this entry.
            for stale in entry.parent.glob(f".{entry.name}.*"):
                shutil.rmtree(stale, ignore_errors=True)
        _check_space(entry.parent, size)
        partial = entry.with_name(f".{entry.name}.{uuid.uuid4().hex}")
        partial.mkdir()
    try:
        fill(partial)
        with local_errors(entry):
            (partial / _MANIFEST).write_text(json.dumps(model_entries(partial)))
            shutil.rmtree(entry, ignore_errors=True)
            partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return entry


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFull(f"{needed / 1e9:.1f} GB do not fit into {free / 1e9:.1f} GB", file=str(folder))


def _of_cache(error: SftjobError, cache: Path) -> bool:
    """Whether an error is about a file of the cache, and not about where the model comes from."""
    inside = f"{cache}{os.sep}"
    return any(problem.file.startswith(inside) for problem in error.problems)
