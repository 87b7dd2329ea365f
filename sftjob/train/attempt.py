"""One attempt at a run: its number, its place in the store and on disk. Passed to everything that works for it."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from sftjob.contract import keys
from sftjob.records import Result
from sftjob.resolve import ResolvedJob
from sftjob.spec import sha256_hex
from sftjob.storage import ObjectStore
from sftjob.train.verdict import Verdict
from sftjob.train.workdir import WorkDir


@dataclass(frozen=True)
class Attempt:
    number: int
    owner: str
    index: int
    """Of this pod in its gang; the node's rank."""
    job: ResolvedJob
    store: ObjectStore
    """Seen from the run's own prefix."""
    work: WorkDir

    @cached_property
    def spec_sha256(self) -> str:
        """Of spec.json as it is stored: an older version may have written it with fewer fields."""
        return sha256_hex(self.store.get_bytes(keys.SPEC))

    def result(self, verdict: Verdict) -> Result:
        """What is stored of how the attempt ended."""
        return Result(
            attempt=self.number,
            owner=self.owner,
            index=self.index,
            exit_code=verdict.code,
            reason=verdict.reason,
            step=verdict.step,
            time=now(),
        )


def now() -> str:
    """UTC in ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def say(line: str) -> None:
    """A line for people, at once: nobody should wonder what a container is doing."""
    # Nobody reads any more: no reason to end a training.
    with suppress(BrokenPipeError):
        print(line, flush=True)
