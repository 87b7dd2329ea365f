"""`sftjob status`: where a run stands, from the cluster and from its store."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sftjob.app.run_progress import Progress, read_progress
from sftjob.app.run_target import Target, open_run_store
from sftjob.cluster.objects import Pod
from sftjob.cluster.pending import Why, why_pending
from sftjob.cluster.phase import Phase, Run, State, state
from sftjob.cluster.runs import events_of, load_run
from sftjob.contract import Component
from sftjob.errors import ObjectMissing, SftjobError
from sftjob.inputs import silent

_LOOKED_AT = 3
"""So many pods that have not started are asked for their events: the others of a gang wait for the same."""

_START = "sftjob wait does it where kubernetes.evaluation is cli, else sftjob submit"
_WAITING = frozenset({Phase.PENDING, Phase.STARTING, Phase.RESTARTING, Phase.QUEUED, Phase.SUSPENDED})


@dataclass(frozen=True, kw_only=True)
class Status:
    """A run as of now."""

    run: Run
    state: State
    why: Why | None
    """Why something of it has not started."""
    store_uri: str = ""
    progress: Progress | None = None
    """None where the store could not be read."""


def read_status(target: Target, *, warn: Callable[[str], None] = silent) -> Status:
    """Asks the cluster and the store.

    Args:
        target: the run.
        warn: is told why the store's half is missing.

    Raises:
        ObjectMissing: neither the cluster nor the store knows the run.
        ClusterError: the cluster does not answer.
    """
    run = load_run(target.cluster, target.run_id)
    uri, progress = _from_store(target, run, warn)
    now = known_state(run, progress)
    if now.phase is Phase.GONE:
        reason = f"no run {run.run_id} in namespace {run.namespace}"
        raise ObjectMissing(reason, hint="sftjob submit starts it; sftjob list -A shows all runs")
    return Status(run=run, state=now, why=why_not_started(target, run, now), store_uri=uri, progress=progress)


def why_not_started(target: Target, run: Run, now: State) -> Why | None:
    """Why a part of the run has pods that have not started, with the events of its Job and of a few pods."""
    workload = run.evaluation if now.component is Component.EVAL else run.train
    if now.phase is Phase.TRAINED and run.evaluation is not None:
        workload = run.gate
        if workload is None or workload.finish is not None:
            return Why(
                "no gate is there to start it" if workload is None else "the gate has ended without starting it", _START
            )
    elif now.phase not in _WAITING:
        return None
    if workload is None:
        return None
    pods = run.pods_of(workload)
    waiting = [pod.name for pod in pods if not pod.started and not pod.ended][:_LOOKED_AT]
    return why_pending(workload, pods, events_of(target.cluster, workload.name, *waiting))


def status_json(status: Status) -> dict[str, Any]:
    """The same for programs; times in ISO 8601, durations in seconds."""
    run, now, progress = status.run, status.state, status.progress
    train = run.train
    return {
        "run_id": run.run_id,
        "namespace": run.namespace,
        "revision": run.revision,
        "other_revisions": list(run.other_revisions),
        "phase": now.phase.value,
        "component": now.component.value,
        "reason": now.reason,
        "exit_code": now.exit_code,
        "pending": {"reason": status.why.reason, "next": status.why.hint} if status.why else None,
        "nodes": train.pods if train else None,
        "gpus": train.pods * train.gpus_per_pod if train else None,
        "restarts": restarts(status),
        "store": status.store_uri or None,
        "progress": _progress_json(progress) if progress else None,
        "pods": [_pod_json(pod) for pod in sorted(run.pods, key=pod_order)],
    }


def restarts(status: Status) -> int:
    """Attempts after the first, whatever ended them; without the store only those that the Job counts."""
    counted = status.run.train.restarts if status.run.train else 0
    return max(counted, status.progress.restarts if status.progress else 0)


def pod_order(pod: Pod) -> tuple[int, int, float]:
    """Training before evaluation before gate, by rank, older pods first."""
    order = [each.value for each in Component]
    place = order.index(pod.component) if pod.component in order else len(order)
    return place, pod.index, pod.created.timestamp() if pod.created else 0.0


def _from_store(target: Target, run: Run, warn: Callable[[str], None]) -> tuple[str, Progress | None]:
    try:
        store = open_run_store(target, run)
        return store.uri, read_progress(store)
    except SftjobError as error:
        # Without any Job there is nothing else to show.
        if not run.revision and target.spec is not None:
            raise
        warn(f"note: without step, loss and checkpoints: {error}")
        return "", None


def known_state(run: Run, progress: Progress | None) -> State:
    """The cluster's word; of a run whose Jobs are gone (their TTL, or somebody deleted them) the store's."""
    now = state(run)
    if now.phase not in (Phase.GONE, Phase.STOPPED) or progress is None:
        return now
    if progress.trained:
        return State(phase=Phase.DONE if progress.evaluated else Phase.TRAINED)
    if progress.failed:
        return State(phase=Phase.FAILED, reason=progress.failed.reason, exit_code=progress.failed.exit_code)
    return State(phase=Phase.STOPPED) if progress.attempt else now


def _progress_json(progress: Progress) -> dict[str, Any]:
    shown = asdict(progress)
    committed_at = progress.committed_at
    shown["committed_at"] = committed_at.isoformat() if committed_at else None
    shown["committed_seconds_ago"] = round(age(committed_at)) if committed_at else None
    shown["seconds_left"] = progress.seconds_left
    shown["failed"] = progress.failed.model_dump(mode="json") if progress.failed else None
    return shown


def _pod_json(pod: Pod) -> dict[str, Any]:
    end = pod.terminated
    return {
        "name": pod.name,
        "component": pod.component,
        "index": pod.index,
        "phase": pod.phase,
        "node": pod.node or None,
        "exit_code": end.exit_code if end else None,
        "reason": (end.told or end.reason) if end else pod.waiting.reason if pod.waiting else None,
    }


def age(moment: datetime) -> float:
    """Seconds since then; never negative, clocks differ."""
    return max((datetime.now(UTC) - moment).total_seconds(), 0.0)
