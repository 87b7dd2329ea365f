"""Look, decide, act, until nothing is left to do. Outages of the API server and of the store are waited out."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar

from sftjob.cluster.kinds import Kind
from sftjob.contract import QUEUE_LABEL, ExitCode, keys
from sftjob.errors import (
    ClusterError,
    Denied,
    NotFound,
    ObjectMissing,
    SftjobError,
    SpecError,
    StorageError,
    Unavailable,
)
from sftjob.gate.decide import PATIENCE_SECONDS, Act, Decision, Past, decide
from sftjob.gate.settings import Settings
from sftjob.gate.state import EvalState, Marks, Phase, TrainState, eval_state, train_state
from sftjob.records import Result, read_record
from sftjob.storage import ObjectStore
from sftjob.storage.base import exists

T = TypeVar("T")
_LONGEST_DELAY_SECONDS: Final = 120.0
_JITTER: Final = 0.2
"""A share of the delay, so that the gates of many runs do not ask in step."""


class Jobs(Protocol):
    """The part of `sftjob.cluster.api.Cluster` that the gate's Role allows."""

    def get(self, kind: Kind, name: str) -> dict[str, Any]: ...
    def patch(self, kind: Kind, name: str, patch: dict[str, Any]) -> object: ...
    def delete(self, kind: Kind, name: str, *, propagation: str = ...) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Time and an ear, which tests replace."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    say: Callable[[str], None] = lambda line: print(line, flush=True)


@dataclass(frozen=True)
class Ending:
    code: ExitCode
    reason: str


def watch(settings: Settings, jobs: Jobs, store: ObjectStore, around: Surroundings | None = None) -> Ending:
    """Runs the gate until it has nothing left to do.

    Args:
        store: seen from the run's own prefix.

    Raises:
        Denied: requests have been refused for two minutes; that long a Role may take to come after its pod.
        SpecError: the server has found a change of the eval Job invalid for as long.
        SftjobError: something else that asking again does not repair.
    """
    around = around or Surroundings()
    gate = _Gate(settings, jobs, store, around, begin=around.clock())
    while True:
        try:
            if ending := gate.look():
                return ending
        except (ClusterError, StorageError, Denied, SpecError) as error:
            gate.trouble(error)
        around.sleep(gate.delay() * random.uniform(1 - _JITTER, 1 + _JITTER))


@dataclass
class _Gate:
    settings: Settings
    jobs: Jobs
    store: ObjectStore
    around: Surroundings
    begin: float
    past: Past = field(default_factory=Past)
    train: TrainState | None = None
    evaluation: EvalState | None = None
    success: bool = False
    said: str = ""
    troubles: int = 0
    """Looks in a row that an error has ended."""
    trouble_since: float = 0.0

    def look(self) -> Ending | None:
        """One look and what follows from it; what ends the gate, if that does."""
        # In this order: whatever training has stored before its Job ended is seen after its end.
        train = train_state(self._get(self._train_kind, self.settings.train))
        evaluation = eval_state(self._get(Kind.JOB, self.settings.evaluation))
        marks = self._marks()
        self._remember(train, evaluation)
        decision = decide(train, evaluation, marks, self.past, queue=self.settings.queue)
        self._act(decision)
        if self.troubles:
            self.troubles = 0
            self.around.say("the outage is over")
        if decision.act is not Act.WAIT:
            self.said = ""  # What is done is said each time.
        self._say(decision.reason)
        return Ending(decision.code, decision.reason) if decision.act in (Act.DELETE, Act.END) else None

    def trouble(self, error: SftjobError) -> None:
        """Tells of an outage once; raises a refusal that lasts. Whether a webhook's is for good, nobody can see."""
        now = self.around.clock()
        if not self.troubles:
            self.trouble_since = now
            self.around.say(f"asking again: {error}")
        self.troubles += 1
        if isinstance(error, Denied | SpecError) and now - self.trouble_since >= PATIENCE_SECONDS:
            raise error

    def delay(self) -> float:
        """Seconds until the next look; they grow in an outage."""
        usual = self.settings.look_seconds
        return max(usual, min(usual * 2.0 ** min(self.troubles, 16), _LONGEST_DELAY_SECONDS))

    @property
    def _train_kind(self) -> Kind:
        return Kind.JOBSET if self.settings.engine == "jobset" else Kind.JOB

    def _get(self, kind: Kind, name: str) -> Mapping[str, Any] | None:
        return self._allowed(lambda: self.jobs.get(kind, name))

    def _allowed(self, ask: Callable[[], T]) -> T | None:
        """The answer; None where the object is not there. A refusal says which rights the gate needs."""
        try:
            return ask()
        except ObjectMissing:
            return None
        except Denied as error:
            settings = self.settings
            train = f"{settings.engine}/{settings.train}"
            rights = f"get of {train}, and get, patch and delete of job/{settings.evaluation}"
            hint = f"the gate's Role in namespace {settings.namespace} has to allow {rights}"
            raise Denied(replace(problem, hint=hint) for problem in error.problems) from error

    def _marks(self) -> Marks:
        """`_SUCCESS` stays once it is there, and then nothing else counts."""
        self.success = self.success or exists(self.store, keys.SUCCESS)
        return Marks(success=True) if self.success else Marks(failed=_failed(self.store))

    def _remember(self, train: TrainState, evaluation: EvalState) -> None:
        same_train = self.train is not None and self.train.phase is train.phase
        same_eval = self.evaluation is not None and self.evaluation.phase is evaluation.phase
        self.past = replace(
            self.past,
            seconds=self.around.clock() - self.begin,
            train_looks=self.past.train_looks + 1 if same_train else 1,
            eval_looks=self.past.eval_looks + 1 if same_eval else 1,
            train_seen=self.past.train_seen or train.phase is not Phase.ABSENT,
            eval_seen=self.past.eval_seen or evaluation.phase is not Phase.ABSENT,
        )
        self.train, self.evaluation = train, evaluation

    def _say(self, line: str) -> None:
        if line != self.said:
            self.said = line
            self.around.say(line)

    def _act(self, decision: Decision) -> None:
        """The next look sees what has come of it, also where somebody was quicker."""
        jobs, name = self.jobs, self.settings.evaluation
        if decision.act is Act.RESUME:
            self._allowed(lambda: jobs.patch(Kind.JOB, name, {"spec": {"suspend": False}}))
        elif decision.act is Act.ENQUEUE:
            label = {QUEUE_LABEL: self.settings.queue}
            self._allowed(lambda: jobs.patch(Kind.JOB, name, {"metadata": {"labels": label}}))
        elif decision.act is Act.DELETE:
            self._allowed(lambda: jobs.delete(Kind.JOB, name, propagation="Background"))


def _failed(store: ObjectStore) -> Result | None:
    try:
        return read_record(Result, store.get_bytes(keys.FAILED), keys.FAILED)
    except Unavailable:
        raise
    except NotFound:
        return None
    except StorageError:
        # Unreadable: the Job's own conditions tell the same a little later.
        return None
