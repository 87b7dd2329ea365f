"""`sftjob wait`: until a run is over, whichever way; it starts the evaluation where that is left to the client."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sftjob.app.run_progress import read_progress
from sftjob.app.run_target import Target, evaluation_is_ours, open_run_store
from sftjob.app.status import Status, known_state, why_not_started
from sftjob.app.status_text import phase_text, progress_lines
from sftjob.cluster.api import Kind
from sftjob.cluster.phase import Phase, Run, State, exit_code_of, state
from sftjob.cluster.run_watch import watch_run
from sftjob.cluster.runs import check_namespace
from sftjob.contract import QUEUE_LABEL, ExitCode
from sftjob.errors import ObjectMissing, SftjobError
from sftjob.storage import ObjectStore

_PROGRESS_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 10.0
_GONE_SECONDS: Final = 5.0
_AWAY: Final = frozenset({Phase.GONE, Phase.STOPPED})
_SUBMIT: Final = "sftjob submit starts what is still missing"


class TimedOut(Exception):
    """The time is up and the run goes on."""


def wait(target: Target, say: Callable[[str], None], *, timeout: float | None = None) -> ExitCode:
    """Waits until training and evaluation are over, and says what changes meanwhile.

    Args:
        target: the run.
        say: is given a line for every change, and one a minute while it trains.
        timeout: seconds.

    Returns:
        0, or the failed container's exit code; 70 where it has none of ours or nobody knows it.

    Raises:
        ObjectMissing: there is no such run.
        TimedOut: it goes on.
        ClusterError: the cluster has not answered for two minutes.
    """
    end = None if timeout is None else time.monotonic() + timeout
    teller = _Teller(target, say)
    for run in watch_run(target.cluster, target.run_id, every=_within(_LOOK_SECONDS, end)):
        now = state(run)
        if now.phase in _AWAY and (not teller.seen or teller.long_gone()):
            now = teller.known(run, now)
        if now.phase is Phase.GONE and not teller.seen:
            check_namespace(target.cluster)
            raise ObjectMissing(f"no run {target.run_id} in namespace {run.namespace}", hint=_SUBMIT)
        teller.tell(run, now)
        passing = now.phase in _AWAY and not teller.long_gone()
        if not passing and (code := _over(target, run, now, say)) is not None:
            return code
        if end is not None and time.monotonic() >= end:
            raise TimedOut(f"{target.run_id} goes on ({now.phase})")
    raise AssertionError("a watch without an end has ended")


def _over(target: Target, run: Run, now: State, say: Callable[[str], None]) -> ExitCode | None:
    """The exit code when the run is over; starts the evaluation where nobody else will."""
    match now.phase:
        case Phase.DONE:
            return ExitCode.DONE
        case Phase.FAILED:
            return _table_code(now.exit_code)
        case phase if phase in _AWAY:
            say("deleted  its Jobs are gone before it was done")
            return ExitCode.CRASH
        case Phase.TRAINED:
            return _start_evaluation(target, run, say)
        case _:
            return None


def _start_evaluation(target: Target, run: Run, say: Callable[[str], None]) -> ExitCode | None:
    """Does the gate's work where the spec says so, and tells when the gate has ended without doing it."""
    evaluation, gate = run.evaluation, run.gate
    if evaluation is None:
        return None if run.train else _not_evaluated(target, say)
    if gate is None and evaluation_is_ours(target.cluster, run):
        resume(target, run)
        say("started  the evaluation")
        return None
    if gate is not None and gate.finish is None and not gate.deleting:
        return None
    code = exit_code_of(gate, run.pods_of(gate)) if gate else None
    who = "the gate has ended" if gate else "no gate is there"
    say(f"stuck    {who} and the evaluation is still suspended; {_SUBMIT}")
    return _table_code(code)


def _not_evaluated(target: Target, say: Callable[[str], None]) -> ExitCode:
    """Its Jobs are gone, and the store has no evaluation."""
    if target.spec is not None and target.spec.kubernetes.evaluation == "never":
        return ExitCode.DONE
    say(f"stuck    it is trained, and no Job is there to evaluate it; {_SUBMIT}")
    return ExitCode.CRASH


def resume(target: Target, run: Run) -> None:
    """Lets the evaluation start: takes `suspend` away, or under Kueue hands its Job to the training's queue."""
    if run.evaluation is None:
        return
    queue = run.train.queue if run.train else ""
    if queue:
        target.cluster.patch(Kind.JOB, run.evaluation.name, {"metadata": {"labels": {QUEUE_LABEL: queue}}})
    else:
        target.cluster.patch(Kind.JOB, run.evaluation.name, {"spec": {"suspend": False}})


def _table_code(code: int | None) -> ExitCode:
    """A signal's code and a stranger's are a crash to whoever reads our table."""
    return ExitCode(code) if code and code in {each.value for each in ExitCode} else ExitCode.CRASH


def _within(seconds: float, end: float | None) -> float:
    return seconds if end is None else max(0.1, min(seconds, end - time.monotonic()))


@dataclass
class _Teller:
    """Says what is new, and once."""

    target: Target
    say: Callable[[str], None]
    seen: bool = False
    phase: str = ""
    why: str = ""
    """At the look before."""
    told: str = ""
    store: ObjectStore | None = None
    no_store: bool = False
    next_progress: float = field(default_factory=time.monotonic)
    gone_since: float | None = None

    def tell(self, run: Run, now: State) -> None:
        """Phase and reason when they have changed, progress when it is due."""
        self.seen = True
        if now.phase not in _AWAY:
            self.gone_since = None
        phase, why = phase_text(Status(run=run, state=now, why=None)), self._why(run, now)
        if phase != self.phase:
            self.say(f"phase    {phase}")
        # What holds for a moment only is not worth a line.
        if why and why == self.why and why != self.told:
            self.say(f"why      {why}")
            self.told = why
        self.phase, self.why = phase, why
        if now.phase is Phase.TRAINING and time.monotonic() >= self.next_progress:
            self.next_progress = time.monotonic() + _PROGRESS_SECONDS
            self._tell_progress(run, now)

    def long_gone(self) -> bool:
        """Whether its Jobs have been away for some seconds: `submit` replaces those of a failed run."""
        self.gone_since = self.gone_since or time.monotonic()
        return time.monotonic() - self.gone_since >= _GONE_SECONDS

    def known(self, run: Run, now: State) -> State:
        """What the store says of a run whose Jobs are gone; theirs may have been deleted for their age."""
        try:
            self.store = self.store or open_run_store(self.target, run)
            return known_state(run, read_progress(self.store))
        except SftjobError:
            return now

    def _why(self, run: Run, now: State) -> str:
        """Why something has not started; empty when nothing waits."""
        found = why_not_started(self.target, run, now)
        return str(found) if found else ""

    def _tell_progress(self, run: Run, now: State) -> None:
        if self.no_store:
            return
        try:
            self.store = self.store or open_run_store(self.target, run)
            status = Status(run=run, state=now, why=None, progress=read_progress(self.store))
        except SftjobError as error:
            self.no_store = True
            self.say(f"note: without step, loss and checkpoints: {error}")
            return
        told = [" ".join(line.split()) for line in progress_lines(status)]
        if told and told[0].startswith("step "):
            self.say("         " + "; ".join(told))
