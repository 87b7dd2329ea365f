"""What a look at the cluster and at the store has found. Read from the server's JSON, tolerant to what is missing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from sftjob.contract import QUEUE_LABEL
from sftjob.records import Result

_COMPLETE: Final = frozenset({"Complete", "Completed"})
"""A Job's word and a JobSet's. `SuccessCriteriaMet` and `FailureTarget` are announcements: pods still run."""


class Phase(Enum):
    """Where a Job or JobSet is. The last two are final."""

    ABSENT = "absent"
    SUSPENDED = "suspended"
    RUNNING = "running"
    """Or pending: the Job has its pods, or wants them."""
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """The train Job or JobSet."""

    phase: Phase = Phase.ABSENT
    uid: str = ""
    why: str = ""
    """Of a failure: `reason: message` of the condition."""
    ready: int = 0
    """Pods that run."""
    pods: int = 0
    """Pods that there should be."""


@dataclass(frozen=True, kw_only=True)
class EvalState:
    """The eval Job. One that is being deleted is absent: it starts no more pods."""

    phase: Phase = Phase.ABSENT
    why: str = ""
    queue: str = ""
    """Value of Kueue's label; empty where there is none."""


@dataclass(frozen=True, kw_only=True)
class Marks:
    """What the run's store says."""

    success: bool = False
    failed: Result | None = None
    """`_FAILED`, whoever has written it."""


def train_state(found: Mapping[str, Any] | None) -> TrainState:
    """Reads a train Job or JobSet; None means that there is none."""
    if found is None:
        return TrainState()
    ready, pods = _pods(found)
    return TrainState(
        phase=_phase(found), uid=_part(found, "metadata").get("uid", ""), why=_why(found), ready=ready, pods=pods
    )


def eval_state(found: Mapping[str, Any] | None) -> EvalState:
    """Reads an eval Job; None means that there is none."""
    if found is None or _part(found, "metadata").get("deletionTimestamp"):
        return EvalState()
    labels = _part(_part(found, "metadata"), "labels")
    return EvalState(phase=_phase(found), why=_why(found), queue=labels.get(QUEUE_LABEL, ""))


def _phase(found: Mapping[str, Any]) -> Phase:
    types = {condition.get("type") for condition in _conditions(found)}
    if "Failed" in types:
        return Phase.FAILED
    if types & _COMPLETE:
        return Phase.COMPLETE
    # The wish, not the condition: that follows later.
    return Phase.SUSPENDED if _part(found, "spec").get("suspend") else Phase.RUNNING


def _why(found: Mapping[str, Any]) -> str:
    failures = (each for each in _conditions(found) if each.get("type") == "Failed")
    failure = next(failures, {})
    return ": ".join(text for text in (failure.get("reason"), failure.get("message")) if text)


def _conditions(found: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Those that hold."""
    conditions = _part(found, "status").get("conditions") or []
    return (each for each in conditions if each.get("status") == "True")


def _pods(found: Mapping[str, Any]) -> tuple[int, int]:
    """How many run, of how many."""
    spec, status = _part(found, "spec"), _part(found, "status")
    groups = spec.get("replicatedJobs")
    if groups is None:
        return status.get("ready") or 0, spec.get("parallelism") or 1
    # A JobSet counts Jobs: each is ready when all its pods are.
    ready = {each.get("name"): each.get("ready") or 0 for each in status.get("replicatedJobsStatus") or []}
    sizes = {group.get("name"): _part(_part(group, "template"), "spec").get("parallelism") or 1 for group in groups}
    wanted = {group.get("name"): group.get("replicas") or 1 for group in groups}
    return (
        sum(sizes[name] * min(ready.get(name, 0), wanted[name]) for name in sizes),
        sum(sizes[name] * wanted[name] for name in sizes),
    )


def _part(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = found.get(name)
    return part if isinstance(part, Mapping) else {}
