"""Where a run stands, from its Jobs and pods. Pure."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sftjob.cluster.objects import Pod, Workload
from sftjob.contract import Component, ExitCode, JobAction


class Phase(StrEnum):
    """One word for people."""

    QUEUED = "queued"
    """Kueue holds it."""
    SUSPENDED = "suspended"
    PENDING = "pending"
    """No pod of the training has started yet."""
    STARTING = "starting"
    """Some pods run, others do not yet."""
    TRAINING = "training"
    RESTARTING = "restarting"
    """Between two attempts."""
    TRAINED = "trained"
    """The evaluation has not begun."""
    EVALUATING = "evaluating"
    DONE = "done"
    FAILED = "failed"
    STOPPING = "stopping"
    """It is being deleted, or about to fail."""
    STOPPED = "stopped"
    """Its Jobs are gone before it was done; the store knows it."""
    GONE = "gone"
    """Nothing of it is in the cluster."""

    @property
    def over(self) -> bool:
        """Nothing more will happen by itself."""
        return self in (Phase.DONE, Phase.FAILED, Phase.STOPPED, Phase.GONE)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run's objects of its newest revision, and all of its pods."""

    run_id: str
    namespace: str
    revision: str
    """Of the newest objects; empty where there are none."""
    train: Workload | None
    evaluation: Workload | None
    gate: Workload | None
    pods: tuple[Pod, ...] = ()
    workloads: tuple[Workload, ...] = ()
    """All Jobs and JobSets, those of older revisions too."""
    other_revisions: tuple[str, ...] = ()
    """Older ones that are still there, for instance while an upgrade goes on."""

    def pods_of(self, workload: Workload | None) -> tuple[Pod, ...]:
        """Pods of the same component and revision's Job."""
        if workload is None:
            return ()
        child = f"{workload.name}-" if workload.jobset else ""
        return tuple(each for each in self.pods if each.job == workload.name or (child and each.job.startswith(child)))


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run stands."""

    phase: Phase
    component: Component = Component.TRAIN
    """Which part the phase speaks of."""
    reason: str = ""
    """Of a failure, one line."""
    exit_code: int | None = None
    """Of a failure: what the container ended with, where anybody knows."""


def state(run: Run) -> State:
    """Where a run stands."""
    train, evaluation = run.train, run.evaluation
    if train is None and evaluation is None:
        return State(phase=Phase.GONE)
    if train is not None:
        if train.finish is None:
            return State(phase=_going(train, run.pods_of(train)))
        if not train.finish.succeeded:
            return _failure(train, run.pods_of(train), Component.TRAIN)
    if evaluation is None:
        return _without_evaluation(run)
    if train is None and evaluation.suspended and not evaluation.queue:
        # The gate looks into the store, and starts it or deletes it. Without one nobody does.
        waits = run.gate is not None and run.gate.finish is None and not run.gate.deleting
        return State(phase=Phase.TRAINED if waits else Phase.STOPPED)
    return _evaluation(evaluation, run.pods_of(evaluation))


def job_phase(job: Workload) -> Phase:
    """The same of one Job without a look at its pods: what a list of many can tell."""
    if job.finish is not None:
        return Phase.DONE if job.finish.succeeded else Phase.FAILED
    if job.deleting:
        return Phase.STOPPING
    if job.suspended:
        return Phase.QUEUED if job.queue else Phase.SUSPENDED
    if job.ready:
        return Phase.TRAINING if job.ready >= job.pods else Phase.STARTING
    return Phase.RESTARTING if job.restarts else Phase.PENDING


def exit_code_of(workload: Workload, pods: Sequence[Pod]) -> int | None:
    """What a failed Job's container ended with: of several pods the one that decided, else as the controller says."""
    ended = [each.terminated for each in pods if each.terminated and each.terminated.exit_code]
    for end in ended:
        if end.exit_code in _PERMANENT:
            return end.exit_code
    if found := _SAID.search(workload.finish.message if workload.finish else ""):
        return int(found[1])
    last = max(ended, key=lambda end: end.finished.timestamp() if end.finished else 0.0, default=None)
    return last.exit_code if last else None


_PERMANENT: Final = frozenset(code.value for code in ExitCode if code and code.action is JobAction.FAIL_JOB)
_SAID: Final = re.compile(r"failed with exit code (\d+)")
"""In the message of a Job that a podFailurePolicy rule has failed; a JobSet's repeats it."""


def _going(train: Workload, pods: Sequence[Pod]) -> Phase:
    # A permanent error: the Job says so itself a moment later.
    if train.deleting or any(pod.terminated and pod.terminated.exit_code in _PERMANENT for pod in pods):
        return Phase.STOPPING
    if train.suspended:
        return Phase.QUEUED if train.queue else Phase.SUSPENDED
    alive = [pod for pod in pods if not pod.ended and not pod.deleting]
    running = [pod for pod in alive if pod.started]
    done = sum(pod.phase == "Succeeded" for pod in pods)
    if len(running) + done >= train.pods:
        # Also when all have ended well, and the Job does not say so yet.
        return Phase.TRAINING
    lost = len(pods) - len(alive) - done
    if running and not (lost and len(alive) + done < train.pods):
        return Phase.STARTING
    return Phase.RESTARTING if running or lost or train.restarts else Phase.PENDING


def _without_evaluation(run: Run) -> State:
    """None was wanted, or the gate has deleted it: it does so where it does not find what was trained."""
    gate = run.gate
    if gate is None or (gate.finish and gate.finish.succeeded):
        return State(phase=Phase.DONE)
    if gate.finish:
        return _failure(gate, run.pods_of(gate), Component.GATE)
    return State(phase=Phase.TRAINED)


def _evaluation(evaluation: Workload, pods: Sequence[Pod]) -> State:
    component = Component.EVAL
    if evaluation.finish is not None:
        if evaluation.finish.succeeded:
            return State(phase=Phase.DONE, component=component)
        return _failure(evaluation, pods, component)
    if evaluation.deleting:
        return State(phase=Phase.STOPPING, component=component)
    if evaluation.suspended:
        return State(phase=Phase.QUEUED if evaluation.queue else Phase.TRAINED, component=component)
    # Also when it has ended well, and the Job does not say so yet.
    started = any((pod.started and not pod.ended) or pod.phase == "Succeeded" for pod in pods)
    return State(phase=Phase.EVALUATING if started else Phase.PENDING, component=component)


def _failure(workload: Workload, pods: Sequence[Pod], component: Component) -> State:
    code = exit_code_of(workload, pods)
    return State(phase=Phase.FAILED, component=component, reason=_why(workload, pods, code), exit_code=code)


def _why(workload: Workload, pods: Sequence[Pod], code: int | None) -> str:
    """What our own process said, else what its exit code means, else the controller's words."""
    ends = [each.terminated for each in pods if each.terminated and each.terminated.exit_code == code]
    told = next((end.told for end in reversed(ends) if end.told), "")
    killed = any(end.reason == "OOMKilled" for end in ends)
    if killed:
        told = "out of memory: raise resources.memory, or lower per_device_train_batch_size or max_length"
    elif not told and code in {each.value for each in ExitCode}:
        told = ExitCode(code).meaning
    finish = workload.finish
    reason, message = (finish.reason, finish.message) if finish else ("", "")
    match reason:
        case "DeadlineExceeded":
            return "the deadline (kubernetes.active_deadline_seconds) has passed"
        case "BackoffLimitExceeded":
            crashes = max(math.ceil(workload.failed / workload.pods), 1)
            return f"gave up after {crashes} crashes" + (f"; the last: {told}" if told else "")
        case _:
            return told or " ".join(message.split()) or reason
