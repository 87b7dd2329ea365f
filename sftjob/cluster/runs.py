"""Finds a run's objects with as few requests as will do."""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from sftjob.cluster.api import Cluster, Kind
from sftjob.cluster.objects import Pod, Workload, read_pod, read_workload
from sftjob.cluster.phase import Run
from sftjob.contract import Component, Label
from sftjob.errors import Denied, ObjectMissing, SpecError
from sftjob.render import Manifest

_OWN: Final = "!jobset.sigs.k8s.io/jobset-name"
"""Selects Jobs that no JobSet has made."""
_LABEL_VALUE: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


def find_run_id(cluster: Cluster, reference: str) -> str:
    """The run id that a person means: the whole of one, or the beginning of exactly one.

    Raises:
        SpecError: several runs begin so.
        ObjectMissing: no run does, or there is no such namespace.
    """
    if not _LABEL_VALUE.fullmatch(reference):
        raise SpecError(f"{reference!r} is no run id", hint="sftjob list shows them; a spec ends in .yaml")
    if next(cluster.find(Kind.JOB, labels=pod_selector(reference), page=1), None) is not None:
        return reference
    found = sorted({each.run_id for each in workloads(cluster) if each.run_id.startswith(reference)})
    if not found:
        check_namespace(cluster)
        reason = f"no run {reference} in namespace {cluster.namespace}"
        raise ObjectMissing(reason, hint="sftjob list -n NAMESPACE shows what there is; -A, all runs")
    if len(found) > 1 and reference not in found:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        reason = f"{len(found)} runs begin with {reference}: {', '.join(found[:_NAMED])}{more}"
        raise SpecError(reason, hint="give more of the id")
    # Of ids that begin so, one that is just that comes first.
    return found[0]


_NAMED: Final = 5


def load_run(cluster: Cluster, run_id: str) -> Run:
    """A run's Jobs and pods: two requests, three where the Jobs hold no training.

    Returns:
        A run without Jobs where there are none.
    """
    found = [{**_JOB, **each} for each in cluster.find(Kind.JOB, labels=job_selector(run_id))]
    # Of the newest revision: an older one may have been a plain Job.
    if make_run(run_id, cluster.namespace, found, ()).train is None:
        found += _jobsets(cluster, pod_selector(run_id))
    pods = tuple(read_pod(each) for each in cluster.find(Kind.POD, labels=pod_selector(run_id)))
    return make_run(run_id, cluster.namespace, found, pods)


def workloads(cluster: Cluster, *, all_namespaces: bool = False) -> Iterator[Workload]:
    """Trainings and evaluations of all runs: one paged request for Jobs, one for JobSets."""
    selector = f"{Label.NAME.value}=sftjob,{Label.COMPONENT.value} in ({Component.TRAIN.value},{Component.EVAL.value})"
    for each in cluster.find(Kind.JOB, labels=f"{selector},{_OWN}", all_namespaces=all_namespaces):
        yield read_workload({**_JOB, **each})
    for each in _jobsets(cluster, selector, all_namespaces=all_namespaces):
        yield read_workload(each)


def make_run(run_id: str, namespace: str, manifests: Iterable[Manifest], pods: tuple[Pod, ...]) -> Run:
    """Sorts a run's Jobs and JobSets by what they are for; of several revisions the newest counts."""
    found = [read_workload(each) for each in manifests]
    newest = max(found, key=_age, default=None)
    revision = newest.revision if newest else ""

    def one(component: Component) -> Workload | None:
        own = [each for each in found if each.component == component.value and each.revision == revision]
        return max(own, key=_age, default=None)

    return Run(
        run_id=run_id,
        namespace=namespace,
        revision=revision,
        train=one(Component.TRAIN),
        evaluation=one(Component.EVAL),
        gate=one(Component.GATE),
        pods=pods,
        workloads=tuple(found),
        other_revisions=tuple(sorted({each.revision for each in found} - {revision})),
    )


def job_selector(run_id: str) -> str:
    """Jobs of a run that are its own, not those that its JobSet has made."""
    return f"{pod_selector(run_id)},{_OWN}"


def pod_selector(run_id: str) -> str:
    """All objects of a run that carry our labels."""
    return f"{Label.RUN_ID.value}={run_id}"


def has_jobsets(cluster: Cluster) -> bool:
    """Whether the cluster knows JobSets, and shows them to this person."""
    try:
        next(cluster.find(Kind.JOBSET, page=1), None)
    except (ObjectMissing, Denied):
        return False
    return True


def events_of(cluster: Cluster, *names: str) -> Iterator[Manifest]:
    """Events of the objects of these names; for a person who may not see events, none."""
    for name in names:
        try:
            yield from cluster.find(Kind.EVENT, fields={"involvedObject.name": name})
        except Denied:
            return


def check_namespace(cluster: Cluster) -> None:
    """Tells a namespace that is not there from an empty one, which look alike in a list.

    Raises:
        ObjectMissing: it is not there.
    """
    try:
        cluster.get(Kind.NAMESPACE, cluster.namespace)
    except Denied:
        return
    except ObjectMissing as error:
        hint = f"kubectl create namespace {cluster.namespace}, or name another one with -n"
        raise ObjectMissing(f"namespace {cluster.namespace} is not in the cluster", hint=hint) from error


_JOB: Final[Manifest] = {"apiVersion": Kind.JOB.api_version, "kind": Kind.JOB.kind}
_JOBSET: Final[Manifest] = {"apiVersion": Kind.JOBSET.api_version, "kind": Kind.JOBSET.kind}
"""Items of a list do not say what they are."""


def _jobsets(cluster: Cluster, selector: str, *, all_namespaces: bool = False) -> Iterator[Manifest]:
    try:
        for each in cluster.find(Kind.JOBSET, labels=selector, all_namespaces=all_namespaces):
            yield {**_JOBSET, **each}
    except (ObjectMissing, Denied):
        # No JobSets here, or none that this person may see: a role that only knows Jobs is enough for the rest.
        return


def _age(workload: Workload) -> float:
    return workload.created.timestamp() if workload.created else 0.0
