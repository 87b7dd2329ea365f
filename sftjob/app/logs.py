"""`sftjob logs`: the logs of all pods of a run in one, across restarts."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from sftjob.app.run_target import Target
from sftjob.cluster.api import Cluster, Kind
from sftjob.cluster.feeds import Feeds
from sftjob.cluster.objects import Pod, read_pod
from sftjob.cluster.phase import Phase, Run, state
from sftjob.cluster.run_watch import watch_run
from sftjob.cluster.runs import check_namespace, load_run
from sftjob.contract import Component
from sftjob.errors import ClusterUnavailable, ObjectMissing, SftjobError, SpecError

Say = Callable[[str], None]
_RUN: Final = "run"
_PATIENCE_SECONDS: Final = 120.0
_PAUSE_SECONDS: Final = 1.0


def show_logs(
    target: Target, say: Say, note: Say, *, component: Component | None = None, tail_lines: int | None = None
) -> None:
    """What all pods have written so far, one pod after the other, older pods first.

    Args:
        target: the run.
        say: is given the lines, with `[<index>] ` before each.
        note: is told what is not part of a log.
        component: only its pods; without it those of training and evaluation.
        tail_lines: no more than the last ones of each pod.

    Raises:
        ObjectMissing: there is no such run.
    """
    run = load_run(target.cluster, target.run_id)
    if not run.workloads and not run.pods:
        raise _no_run(target)
    names = _Names()
    pods = sorted(_wanted(run, component), key=_order)
    for pod in pods:
        if not pod.started:
            note(f"note: {pod.name} has not started; sftjob status {run.run_id} says why")
            continue
        prefix = names.prefix(pod)
        for line in _lines(target.cluster, pod, follow=False, tail_lines=tail_lines):
            say(f"{prefix} {line}")
    if not pods:
        note(f"note: no pod of {run.run_id} is there; sftjob status {run.run_id} says why")


def follow_logs(
    target: Target, say: Say, note: Say, *, component: Component | None = None, tail_lines: int | None = None
) -> None:
    """The same, and what is written from now on, until the run (or the component) is over.

    Pods that replace others are followed as they come; a lost connection is taken up where it broke.

    Raises:
        ObjectMissing: there is no such run.
        ClusterError: the cluster has not answered for two minutes.
    """
    feeds, names = Feeds[str | Run](), _Names()
    feeds.add(_RUN, watch_run(target.cluster, target.run_id))
    followed: set[str] = set()
    over = seen = False
    while not over or feeds.running - {_RUN}:
        found = feeds.get(timeout=_PAUSE_SECONDS)
        if found is None:
            continue
        item = found[1]
        if isinstance(item, str):
            say(item)
            continue
        if not seen and not item.workloads and not item.pods:
            raise _no_run(target)
        seen, over = True, over or _is_over(item, component, note)
        for pod in sorted(_wanted(item, component), key=_order):
            if pod.started and pod.uid not in followed:
                followed.add(pod.uid)
                feeds.add(pod.uid, _prefixed(target.cluster, pod, names.prefix(pod), tail_lines))
    # The end of a Job may be told before the beginning of its last pod.
    for pod in sorted(_wanted(load_run(target.cluster, target.run_id), component), key=_order):
        if pod.started and pod.uid not in followed:
            for line in _prefixed(target.cluster, pod, names.prefix(pod), tail_lines):
                say(line)


def _no_run(target: Target) -> ObjectMissing:
    check_namespace(target.cluster)
    reason = f"no run {target.run_id} in namespace {target.cluster.namespace}"
    return ObjectMissing(reason, hint="sftjob list -n NAMESPACE shows what there is; -A, all runs")


def _wanted(run: Run, component: Component | None) -> list[Pod]:
    names = {component.value} if component else {Component.TRAIN.value, Component.EVAL.value}
    return [pod for pod in run.pods if pod.component in names]


def _is_over(run: Run, component: Component | None, note: Say) -> bool:
    """Whether no more pods of the component will come."""
    now = state(run)
    if now.phase.over:
        return True
    if component is Component.TRAIN:
        return run.train is None or run.train.finish is not None
    if component is Component.GATE:
        return run.gate is None or run.gate.finish is not None
    if now.phase is Phase.TRAINED and (run.gate is None or run.gate.finish is not None):
        note(f"note: trained; the evaluation starts with: sftjob wait {run.run_id}")
        return True
    return False


def _order(pod: Pod) -> tuple[float, bool, int]:
    return pod.created.timestamp() if pod.created else 0.0, pod.component != Component.TRAIN.value, pod.index


class _Names:
    """`[0]` for the first pod of an index, `[0 x7k2p]` for its successors; evaluation and gate say their name."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, int], str] = {}

    def prefix(self, pod: Pod) -> str:
        """What stands before each line of this pod."""
        first = self._first.setdefault((pod.component, pod.index), pod.uid)
        who = str(pod.index) if pod.component == Component.TRAIN.value else pod.component
        return f"[{who}]" if first == pod.uid else f"[{who} {pod.name.rpartition('-')[2]}]"


def _prefixed(cluster: Cluster, pod: Pod, prefix: str, tail_lines: int | None) -> Iterator[str]:
    for line in _lines(cluster, pod, follow=True, tail_lines=tail_lines):
        yield f"{prefix} {line}"


def _lines(cluster: Cluster, pod: Pod, *, follow: bool, tail_lines: int | None) -> Iterator[str]:
    """A pod's log, across lost connections. A pod that is deleted takes its log along: that is its end."""
    place = _Place()
    lost_since: float | None = None
    whole = False
    while not whole:
        try:
            # Servers on the way end connections, too: only what is read after the container's end is the end.
            whole = not follow or pod.ended or not _runs(cluster, pod)
            yield from place.read(cluster, pod, follow=follow, tail_lines=tail_lines)
            lost_since = None
            if not whole:
                time.sleep(_PAUSE_SECONDS)
        except (ObjectMissing, SpecError):
            return
        except ClusterUnavailable as error:
            whole = False
            lost_since = _give_up_after(lost_since, error)


@dataclass
class _Place:
    """How far a log was read: the API goes on from a second, of which some lines were told before."""

    second: str = ""
    told: int = 0
    """Lines of this second."""

    def read(self, cluster: Cluster, pod: Pod, *, follow: bool, tail_lines: int | None) -> Iterator[str]:
        """The lines from here on, each once."""
        since, skip = self.second, self.told
        tail = None if since else tail_lines
        for raw in cluster.log(
            pod.name, pod.container, follow=follow, timestamps=True, since_time=since or None, tail_lines=tail
        ):
            stamp, _, line = raw.decode(errors="replace").partition(" ")
            second = f"{stamp[:19]}Z"
            if second == since and skip:
                skip -= 1
                continue
            self.told = self.told + 1 if second == self.second else 1
            self.second = second
            yield line


def _runs(cluster: Cluster, pod: Pod) -> bool:
    """Whether the container still runs."""
    now = read_pod(cluster.get(Kind.POD, pod.name))
    return now.uid == pod.uid and now.started and now.terminated is None


def _give_up_after(lost_since: float | None, error: SftjobError) -> float:
    """Pauses; raises the error when the connection has been lost for long."""
    now = time.monotonic()
    if lost_since is not None and now - lost_since > _PATIENCE_SECONDS:
        raise error
    time.sleep(_PAUSE_SECONDS)
    return now if lost_since is None else lost_since
