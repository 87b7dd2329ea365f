"""`sftjob cancel`: ends a run so that it saves its progress first."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from sftjob.app.run_progress import newest_commit
from sftjob.app.run_target import Target, open_run_store
from sftjob.app.status import age
from sftjob.cluster.api import Cluster, Kind
from sftjob.cluster.objects import Workload
from sftjob.cluster.phase import Run, state
from sftjob.cluster.run_watch import watch_run
from sftjob.cluster.runs import check_namespace
from sftjob.contract import Component
from sftjob.errors import Conflict, ObjectMissing, SftjobError
from sftjob.report import words
from sftjob.storage import ObjectStore

_ORDER: Final = (Component.GATE.value, Component.EVAL.value, Component.TRAIN.value)
"""The gate first: it would take the deletion of the training for its end."""
_EVERY_SECONDS: Final = 10.0


def cancel(target: Target, say: Callable[[str], None]) -> None:
    """Deletes what is unfinished of a run, waits until the last pod is gone, and says what was saved.

    Pods get SIGTERM and their grace period: the training saves a checkpoint and commits it. The spec's ConfigMap and
    the service accounts stay; submitted again, the run continues.

    Args:
        target: the run.
        say: is given a line for every step.

    Raises:
        ObjectMissing: there is no such run.
        Denied: no permission to delete its Jobs.
    """
    watched = watch_run(target.cluster, target.run_id, every=_EVERY_SECONDS)
    run = next(watched)
    if not run.workloads:
        if left := _left_by_itself(target, run):
            say(f"nothing to cancel: {target.run_id} is over; {left}")
            return
        check_namespace(target.cluster)
        reason = f"no run {target.run_id} in namespace {run.namespace}"
        raise ObjectMissing(reason, hint="sftjob list -n NAMESPACE shows what there is; -A, all runs")
    unfinished = sorted((each for each in run.workloads if each.finish is None), key=_place)
    if not unfinished:
        say(f"nothing to cancel: {target.run_id} is over ({state(run).phase})")
        return
    # Its address is known from the Job, which will be gone.
    store = _store(target, run, say)
    before = _committed(store)
    for workload in unfinished:
        _delete(target.cluster, workload, say)
    _await_end(watched, {each.uid for each in unfinished}, say)
    say(f"stopped  {target.run_id}; submitted again, it continues")
    if store is not None:
        say(_saved(store, before))


def _left_by_itself(target: Target, run: Run) -> str:
    """What a run has saved whose Jobs are gone already; empty where nobody knows of one."""
    try:
        step, _ = newest_commit(open_run_store(target, run))
    except SftjobError:
        return ""
    return f"saved: step {words.count(step)}" if step is not None else ""


def _place(workload: Workload) -> int:
    return _ORDER.index(workload.component) if workload.component in _ORDER else 0


def _delete(cluster: Cluster, workload: Workload, say: Callable[[str], None]) -> None:
    """Somebody else may be quicker."""
    with suppress(ObjectMissing, Conflict):
        cluster.delete(Kind.JOBSET if workload.jobset else Kind.JOB, workload.name, uid=workload.uid)
        training = workload.component == Component.TRAIN.value
        say(f"delete   {workload.name}{': its pods save a checkpoint before they end' if training else ''}")


def _await_end(watched: Iterator[Run], deleted: set[str], say: Callable[[str], None]) -> None:
    """Until the Jobs and all of their pods are gone."""
    began, told = time.monotonic(), 0
    for now in watched:
        alive = sum(not pod.ended for pod in now.pods)
        if not alive and not deleted & {each.uid for each in now.workloads}:
            return
        if alive and alive != told:
            say(f"stopping {words.plural(alive, 'pod')} left after {words.duration(time.monotonic() - began)}")
        told = alive


def _store(target: Target, run: Run, say: Callable[[str], None]) -> ObjectStore | None:
    try:
        return open_run_store(target, run)
    except SftjobError as error:
        say(f"note: it cannot be seen what is saved: {error}")
        return None


def _committed(store: ObjectStore | None) -> int | None:
    try:
        return newest_commit(store)[0] if store else None
    except SftjobError:
        return None


def _saved(store: ObjectStore, before: int | None) -> str:
    try:
        step, moment = newest_commit(store)
    except SftjobError as error:
        return f"note: it cannot be seen what is saved: {error}"
    if step is None:
        return "saved    nothing: there was no checkpoint yet"
    when = f", {words.duration(age(moment))} ago" if moment else ""
    return f"saved    step {words.count(step)}{when}{'' if step == before else ', on leaving'}"
