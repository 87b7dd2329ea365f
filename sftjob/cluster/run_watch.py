"""A run as it changes: watches of its Jobs and pods, put together."""

import time
from collections.abc import Iterator
from typing import Final

from sftjob.cluster.api import Cluster, Event, Kind
from sftjob.cluster.feeds import Feeds
from sftjob.cluster.fields import text
from sftjob.cluster.objects import Pod, read_pod
from sftjob.cluster.phase import Run
from sftjob.cluster.runs import has_jobsets, job_selector, make_run, pod_selector
from sftjob.render import Manifest

_SETTLE_SECONDS: Final = 0.2
"""Changes that come together are told together."""


def watch_run(cluster: Cluster, run_id: str, *, every: float = 30.0) -> Iterator[Run]:
    """The run as it is, then again after every change, and at least so often (seconds) without one.

    The first one is complete: all lists have been read. A run whose Jobs are deleted comes without them; the caller
    decides when it has seen enough.

    Raises:
        ClusterError: the cluster has not answered for two minutes.
        Denied: no permission to watch Jobs or pods.
    """
    view, feeds = _View(cluster.namespace, run_id), Feeds[Event]()
    kinds = {Kind.JOB: job_selector(run_id), Kind.POD: pod_selector(run_id)}
    if has_jobsets(cluster):
        kinds[Kind.JOBSET] = pod_selector(run_id)
    for kind, labels in kinds.items():
        feeds.add(kind.name, cluster.watch(kind, labels=labels, bookmarks=True))
    unread = set(kinds)
    while True:
        found = feeds.get(timeout=None if unread else every)
        end = time.monotonic() + _SETTLE_SECONDS
        while found is not None:
            kind = Kind[found[0]]
            if found[1][0] == "BOOKMARK":
                unread.discard(kind)
            view.change(kind, *found[1])
            found = feeds.get(timeout=max(0.0, end - time.monotonic()))
        if not unread:
            yield view.run()


class _View:
    """The newest of every object."""

    def __init__(self, namespace: str, run_id: str) -> None:
        self._namespace, self._run_id = namespace, run_id
        self._workloads: dict[str, Manifest] = {}
        self._pods: dict[str, Pod] = {}

    def change(self, kind: Kind, event: str, manifest: Manifest) -> None:
        uid = text(manifest, "metadata", "uid")
        if event == "BOOKMARK":
            return
        if event == "DELETED":
            self._pods.pop(uid, None)
            self._workloads.pop(uid, None)
        elif kind is Kind.POD:
            self._pods[uid] = read_pod(manifest)
        else:
            # Items of a list say neither.
            self._workloads[uid] = {"apiVersion": kind.api_version, "kind": kind.kind, **manifest}

    def run(self) -> Run:
        return make_run(self._run_id, self._namespace, self._workloads.values(), tuple(self._pods.values()))
