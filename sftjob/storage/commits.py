"""COMMITs: a checkpoint exists because its COMMIT does, which is written last and in one request."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from sftjob.contract import keys
from sftjob.errors import ConfigurationError, Exists, StorageError, Superseded, Unavailable
from sftjob.records import Commit, FileEntry, Part, read_record
from sftjob.storage.base import ObjectStore
from sftjob.storage.files import Progress, fetch_files

_CHECKPOINTS: Final = "checkpoints/"
_COMMIT_KEY: Final = re.compile(r"commits/([0-9]{10})\.json")
_CHECKPOINT_KEY: Final = re.compile(r"checkpoints/([0-9]{10})/.*")


def list_commits(store: ObjectStore) -> list[int]:
    """Steps that are committed, ascending; not yet verified."""
    return [step for step, _ in _steps(store, keys.COMMITS, _COMMIT_KEY)]


def read_commit(store: ObjectStore, step: int) -> Commit:
    """Reads the COMMIT of a step.

    Raises:
        NotFound: there is none.
        StorageError: it cannot be read, or is that of another step.
    """
    key = keys.commit(step)
    commit = read_record(Commit, store.get_bytes(key), key)
    if commit.step != step:
        raise StorageError(f"says step {commit.step}", file=key, field="step")
    return commit


def write_commit(store: ObjectStore, commit: Commit) -> None:
    """Makes a checkpoint exist; all its files must be there already.

    A COMMIT that an older attempt has left for this step is replaced: this attempt holds the run, and went over the
    step again because that one's files were damaged or came too late.

    Raises:
        Superseded: this or a newer attempt has committed other files for the step.
    """
    key = keys.commit(commit.step)
    try:
        store.put_bytes(key, commit.to_json(), if_absent=True)
    except Exists as error:
        if _writer(store, commit.step) >= commit.attempt:
            raise Superseded("another writer has committed this step", file=key) from error
        store.put_bytes(key, commit.to_json())


def restore_latest(
    store: ObjectStore,
    into: Path,
    *,
    spec_sha256: str,
    world_size: int,
    warn: Callable[[str], None],
    on_progress: Progress | None = None,
) -> Commit | None:
    """Fetches the newest checkpoint whose files all verify into the folder `into`.

    Args:
        spec_sha256: of the stored spec.json; a checkpoint of another one is never continued.
        world_size: ranks of this attempt; optimizer and data position are exact for the same number only.
        warn: told of every COMMIT that is passed over.

    Returns:
        The COMMIT to continue from; None where the run has none yet.

    Raises:
        ConfigurationError: the checkpoint belongs to another spec or world size.
        StorageError: there are COMMITs and none is whole. Starting anew must be somebody's decision.
    """
    steps = list_commits(store)
    for step in reversed(steps):
        try:
            return restore_step(
                store, step, into, spec_sha256=spec_sha256, world_size=world_size, on_progress=on_progress
            )
        except Unavailable:
            raise
        except StorageError as error:
            warn(f"the checkpoint of step {step} is damaged and passed over: {error}")
    if not steps:
        return None
    raise StorageError(
        f"none of {len(steps)} checkpoints is whole (newest: step {steps[-1]})",
        file=f"{store.uri}/{keys.COMMITS}",
        hint="restore the objects named above, or start another run with --new-run",
    )


def restore_step(
    store: ObjectStore,
    step: int,
    into: Path,
    *,
    spec_sha256: str,
    world_size: int,
    on_progress: Progress | None = None,
) -> Commit:
    """`restore_latest` for the one checkpoint that somebody else has chosen.

    Raises:
        NotFound: its COMMIT is gone.
        StorageError: it is damaged.
        ConfigurationError: it belongs to another spec or world size.
    """
    commit = read_commit(store, step)
    _check_fits(commit, spec_sha256, world_size)
    fetch_files(store, commit.files, into, on_progress=on_progress)
    return commit


def committed_by(store: ObjectStore, attempt: int, step: int) -> int | None:
    """Newest step from `step` on that this attempt has committed; COMMITs of older attempts do not count."""
    newer = (each for each in reversed(list_commits(store)) if each >= step)
    return next((each for each in newer if _writer(store, each) == attempt), None)


def merge_parts(parts: Iterable[Part]) -> tuple[FileEntry, ...]:
    """The files of a checkpoint that several nodes have written, sorted by path.

    Ranks write under names of their own; of a name that several nodes have used the lowest node's file counts.
    """
    found: dict[str, FileEntry] = {}
    for part in sorted(parts, key=lambda part: part.node, reverse=True):
        found |= {entry.path: entry for entry in part.files}
    return tuple(found[path] for path in sorted(found))


def prune_commits(store: ObjectStore, keep: int) -> None:
    """Deletes all but the newest `keep` checkpoints (at least one stays), and data that older ones have left.

    A COMMIT goes before its data, so that whatever interrupts this, no COMMIT lacks its files. Data newer than the
    oldest kept COMMIT may be a checkpoint that is just being uploaded, and stay.
    """
    steps = list_commits(store)
    if not steps:
        return
    oldest_kept = steps[-max(keep, 1) :][0]
    for step in steps:
        if step < oldest_kept:
            store.delete(keys.commit(step))
    for step, key in _steps(store, _CHECKPOINTS, _CHECKPOINT_KEY):
        if step < oldest_kept:
            store.delete(key)


def _steps(store: ObjectStore, prefix: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Step and key of every object that looks as expected; what others have put there is left alone."""
    for info in store.list(prefix):
        if match := pattern.fullmatch(info.key):
            yield int(match[1]), info.key


def _writer(store: ObjectStore, step: int) -> int:
    """The attempt that has committed a step; 0 where its COMMIT is gone or cannot be read."""
    try:
        return read_commit(store, step).attempt
    except Unavailable:
        raise
    except StorageError:
        return 0


def _check_fits(commit: Commit, spec_sha256: str, world_size: int) -> None:
    key = keys.commit(commit.step)
    if commit.spec_sha256 != spec_sha256:
        raise ConfigurationError(
            f"the checkpoint was made under spec {commit.spec_sha256[:12]}, spec.json is {spec_sha256[:12]} now",
            file=key,
            field="spec_sha256",
            hint="restore the run's spec.json, or start another run with --new-run",
        )
    if commit.world_size != world_size:
        raise ConfigurationError(
            f"the checkpoint was made by {commit.world_size} processes, now there are {world_size}",
            file=key,
            field="world_size",
            hint=f"continue with {commit.world_size} processes, or start another run with --new-run",
        )
