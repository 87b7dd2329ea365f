"""How far a run is, from what it has written to its store."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sftjob.contract import keys
from sftjob.errors import NotFound, StorageError
from sftjob.records import Environment, Metric, Result, read_record
from sftjob.storage import ObjectStore, newest_attempt
from sftjob.storage.base import exists

_SEGMENT: Final = re.compile(r"metrics/(\d+)/\d{6,}\.jsonl")
_COMMIT: Final = re.compile(r"commits/(\d{10})\.json")
_NEWEST_SEGMENTS: Final = 3
"""So many tell the speed; the first of an attempt is slower than all others."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a run's store says of it. None: nothing is written yet."""

    attempt: int
    """Of the newest claim; 0 before the first."""
    step: int | None = None
    """Of the newest line of metrics."""
    steps: int | None = None
    """That the whole run takes."""
    loss: float | None = None
    held_out_loss: float | None = None
    held_out_step: int | None = None
    seconds_per_step: float | None = None
    committed: int | None = None
    """Step of the newest checkpoint that is durable."""
    committed_at: datetime | None = None
    trained: bool = False
    """The export is durable."""
    evaluated: bool = False
    failed: Result | None = None
    """How the attempt ended that made trying again pointless."""

    @property
    def restarts(self) -> int:
        return max(self.attempt - 1, 0)

    @property
    def seconds_left(self) -> float | None:
        """Of training, by the speed of the last steps."""
        if self.trained or self.step is None or self.steps is None or self.seconds_per_step is None:
            return None
        return max(self.steps - self.step, 0) * self.seconds_per_step


def read_progress(store: ObjectStore) -> Progress:
    """Reads the newest of everything: about eight requests, and one more for each thousand segments of metrics.

    Args:
        store: seen from the run on.

    Raises:
        SftjobError: the store does not answer or refuses. Records that cannot be read are left out.
    """
    attempt = newest_attempt(store)
    lines = _newest_lines(store)
    train = [line for line in lines if line.kind == "train"]
    held_out = [line for line in lines if line.kind == "eval"]
    committed, committed_at = newest_commit(store)
    trained = exists(store, keys.SUCCESS)
    return Progress(
        attempt=attempt,
        step=train[-1].step if train else committed,
        steps=_steps(store, attempt),
        loss=train[-1].loss if train else None,
        held_out_loss=held_out[-1].loss if held_out else None,
        held_out_step=held_out[-1].step if held_out else None,
        seconds_per_step=_seconds_per_step(train),
        committed=committed,
        committed_at=committed_at,
        trained=trained,
        evaluated=trained and any(info.key.endswith(f"/{keys.SUCCESS}") for info in store.list(keys.EVALUATIONS)),
        failed=None if trained else _failed(store),
    )


def newest_commit(store: ObjectStore) -> tuple[int | None, datetime | None]:
    """Step of the newest COMMIT and when it was written."""
    found = [(int(match[1]), info) for info in store.list(keys.COMMITS) if (match := _COMMIT.fullmatch(info.key))]
    if not found:
        return None, None
    step, info = max(found, key=lambda each: each[0])
    return step, info.modified


def _newest_lines(store: ObjectStore) -> list[Metric]:
    """Of the newest attempt that has written any, in the order of their writing."""
    found = [(int(match[1]), info.key) for info in store.list(keys.METRICS) if (match := _SEGMENT.fullmatch(info.key))]
    if not found:
        return []
    newest = max(attempt for attempt, _ in found)
    segments = sorted(key for attempt, key in found if attempt == newest)[-_NEWEST_SEGMENTS:]
    return [line for key in segments for line in _lines(store, key)]


def _lines(store: ObjectStore, key: str) -> Iterable[Metric]:
    for line in store.get_bytes(key).splitlines():
        try:
            yield read_record(Metric, line, key)
        except StorageError:
            # Another version's line, which may lack what this one wants.
            continue


def _seconds_per_step(lines: Sequence[Metric]) -> float | None:
    timed = [(line.step, line.seconds) for line in lines if line.seconds is not None]
    if not timed:
        return None
    (first, began), (last, ended) = timed[0], timed[-1]
    if last > first:
        return (ended - began) / (last - first)
    return ended / last if last else None


def _steps(store: ObjectStore, attempt: int) -> int | None:
    """As the newest attempt that has come so far has counted them."""
    for number in range(attempt, max(attempt - 3, 0), -1):
        key = keys.environment(number, 0)
        try:
            data = store.get_bytes(key)
        except NotFound:
            continue
        steps = read_record(Environment, data, key).ran.get("steps")
        return int(steps) if isinstance(steps, int | float) else None
    return None


def _failed(store: ObjectStore) -> Result | None:
    try:
        return read_record(Result, store.get_bytes(keys.FAILED), keys.FAILED)
    except NotFound:
        return None
