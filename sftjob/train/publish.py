"""What ranks save becomes durable here, beside training: checkpoints with their COMMIT, metrics, the environment."""

import json
import re
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

from sftjob.contract import keys
from sftjob.errors import StorageError, Unavailable
from sftjob.model_folder import tensor_names
from sftjob.records import Commit, FileEntry, Part
from sftjob.storage import ensure_current, list_files, merge_parts, prune_commits, upload_files, write_commit
from sftjob.train.attempt import Attempt, say
from sftjob.train.background import Background
from sftjob.train.events import EventFiles
from sftjob.train.fault import fault
from sftjob.train.segments import Segments

_LOOK_SECONDS: Final = 0.1
_METRICS_SECONDS: Final = 10.0
_NAMES: Final = re.compile(r"(?:checkpoint|saved)-(\d+)(?:-\d+)?")


class Parts(Protocol):
    """The other nodes' parts of a checkpoint, as `sftjob.train.parts` gathers them."""

    def ask(self, step: int) -> None:
        """Tells peers that this step is to be uploaded."""
        ...

    def gather(self, step: int, meanwhile: Callable[[], None]) -> Sequence[Part]:
        """Waits for their parts. `meanwhile` is called now and then."""
        ...


class Uploader:
    """A thread that makes durable what ranks save. Ranks never wait for it."""

    def __init__(self, *, resumed: int | None) -> None:
        """Whoever inherits this calls `_start` when all is there that `_run` needs.

        Args:
            resumed: step of the COMMIT that this attempt continues from; None for a fresh start.
        """
        self._committed = resumed
        self._last = threading.Event()

    @property
    def committed(self) -> int | None:
        """Newest step whose COMMIT is known to be in the store."""
        return self._committed

    def check(self) -> None:
        """Raises what has stopped the uploading, if anything has."""
        self._thread.check()

    def drain(self, *checks: Callable[[], None]) -> None:
        """Waits until everything that is saved is in the store. Call it when no rank writes any more.

        Args:
            checks: are called while it waits; what they raise ends the waiting.
        """
        self._last.set()
        self._thread.wait(*checks)

    def _start(self, name: str) -> None:
        self._thread = Background(self._run, name)

    def _run(self) -> None:
        """Until `_last` is set, and then once more."""
        raise NotImplementedError


class Publisher(Uploader):
    """Uploads the checkpoints of a node that leads, commits them, and uploads metrics and the environment."""

    def __init__(
        self,
        attempt: Attempt,
        *,
        resumed: int | None,
        metrics_seconds: float = _METRICS_SECONDS,
        parts: Parts | None = None,
    ) -> None:
        """Starts the thread.

        Args:
            resumed: step of the COMMIT that this attempt continues from; None for a fresh start.
            parts: of the other nodes, where there are any.
        """
        super().__init__(resumed=resumed)
        self._attempt = attempt
        self._parts = parts
        self._metrics = Segments(attempt.store, attempt.work.metrics, attempt=attempt.number)
        self._events = EventFiles(attempt.store, attempt.work.tensorboard, attempt=attempt.number)
        self._metrics_seconds = metrics_seconds
        self._looked_at = time.monotonic()
        self._environment_seen = False
        self._start("publish")

    def _run(self) -> None:
        last = False
        while not last:
            last = self._last.wait(_LOOK_SECONDS)  # what was saved before `drain` is seen by the look after this
            step = newest_saved(self._attempt)
            if step is not None and step != self._committed:
                self._records(patient=False)  # whoever continues from a COMMIT finds the metrics that lead to it
                self._checkpoint(step)
                self._committed = step
                forget_older(self._attempt, step)
            if last:
                self._records(patient=False)
            else:
                self._records_when_due()

    def _checkpoint(self, step: int) -> None:
        if self._parts is None:
            publish_checkpoint(self._attempt, step)
            return
        parts = self._parts
        parts.ask(step)
        publish_checkpoint(self._attempt, step, others=lambda: parts.gather(step, self._records_when_due))

    def _records_when_due(self) -> None:
        if time.monotonic() - self._looked_at > self._metrics_seconds:
            self._looked_at = time.monotonic()
            self._records(patient=True)

    def _records(self, *, patient: bool) -> None:
        try:
            self._metrics.upload()
            self._events.upload()
            self._environment()
        except Unavailable:
            if not patient:
                raise
            # The same lines are sent again at the next look; only a checkpoint is worth ending a training for.

    def _environment(self) -> None:
        path = self._attempt.work.environment
        if self._environment_seen or not path.exists():
            return
        self._attempt.store.put_bytes(keys.environment(self._attempt.number, self._attempt.index), path.read_bytes())
        self._environment_seen = True


def newest_saved(attempt: Attempt) -> int | None:
    """Newest step that every local rank has saved whole; None without one."""
    return max(saved_steps(attempt), default=None)


def saved_steps(attempt: Attempt) -> list[int]:
    """Steps that every local rank has saved whole and that are here still, ascending."""
    ranks = range(attempt.job.launch.processes_per_node)
    steps = (step_of(path.name) for path in attempt.work.checkpoints.glob("saved-*-0"))
    return sorted(
        step for step in steps if step is not None and all(attempt.work.saved(step, rank).exists() for rank in ranks)
    )


def publish_checkpoint(attempt: Attempt, step: int, others: Callable[[], Sequence[Part]] = tuple) -> Commit:
    """Uploads the files of a step, then makes them a checkpoint by writing its COMMIT.

    Whatever interrupts this, readers see the checkpoints from before, or those and this one whole.

    Args:
        others: waits for the parts of other nodes.

    Raises:
        Superseded: a newer attempt has taken over; nothing was committed.
        StorageError: a local file is damaged, or the store does not answer.
    """
    begin = time.monotonic()
    job, store = attempt.job, attempt.store
    own = upload_part(attempt, step)
    entries = merge_parts([own, *others()])
    fault("publish-commit")
    ensure_current(store, attempt.number)
    commit = Commit(
        run_id=job.run_id,
        attempt=attempt.number,
        step=step,
        spec_sha256=attempt.spec_sha256,
        world_size=job.launch.world_size,
        files=entries,
    )
    write_commit(store, commit)
    say(f"committed step {step} ({amount(entries)}, {time.monotonic() - begin:.1f} s)")
    return commit


def upload_part(attempt: Attempt, step: int) -> Part:
    """Uploads what this node's ranks have written of a step, then the list of it.

    Raises:
        StorageError: a local file is damaged, or the store does not answer.
    """
    store, folder = attempt.store, attempt.work.checkpoint(step)
    files = list_files(folder)
    check_whole(files)
    fault("publish-upload")
    # A name that two nodes use must not be one object.
    place = f"nodes/{attempt.index}" if attempt.index else ""
    entries = upload_files(store, folder, files, keys.checkpoint(step, attempt.number, place))
    part = Part(node=attempt.index, files=entries)
    fault("publish-part")
    store.put_bytes(keys.part(step, attempt.number, attempt.index), part.to_json())
    return part


def forget_older(attempt: Attempt, step: int) -> None:
    """Deletes what the COMMIT of `step` has made superfluous: older checkpoints in the store, all local copies."""
    fault("publish-prune")
    # An older checkpoint that stays for now is deleted after the next COMMIT.
    with suppress(Unavailable):
        prune_commits(attempt.store, attempt.job.training.save_total_limit)
    forget_local(attempt, step)


def forget_local(attempt: Attempt, step: int) -> None:
    """Deletes local copies up to `step`: a COMMIT has made them superfluous."""
    for path in attempt.work.checkpoints.iterdir():
        found = step_of(path.name)
        if found is None or found > step:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def check_whole(files: Iterable[Path]) -> None:
    """Refuses files that a crash or a full disk has cut, as far as their formats tell.

    Raises:
        StorageError: the file is named, with what is wrong.
    """
    for path in files:
        try:
            _check_whole(path)
        except ValueError as error:
            raise StorageError(
                f"not uploaded: {error}", file=str(path), hint="the next attempt saves it anew"
            ) from None


def amount(entries: Sequence[FileEntry]) -> str:
    """For people: `3 files, 12.1 MB`."""
    return f"{len(entries)} file{'s' if len(entries) != 1 else ''}, {sum(entry.size for entry in entries) / 1e6:.1f} MB"


def step_of(name: str) -> int | None:
    """The step in the name of a checkpoint's folder or marker; None for another name."""
    match = _NAMES.fullmatch(name)
    return int(match[1]) if match else None


def _check_whole(path: Path) -> None:
    if path.stat().st_size == 0:
        raise ValueError("the file is empty")
    if path.suffix == ".safetensors":
        tensor_names(path)
    elif path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
        raise ValueError("torch's archive has no end: the file is cut off")
    elif path.suffix == ".json":
        json.loads(path.read_bytes())
