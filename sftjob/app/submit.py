"""`sftjob submit`: a spec becomes a run on a cluster. Called again, it does what is still to be done, or nothing."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sftjob.app.model_config import read_facts
from sftjob.app.pin import PinnedJob
from sftjob.app.plan import plan_of
from sftjob.app.plan_text import verdict
from sftjob.app.profiles import find_profile
from sftjob.app.stage import pin_for_cluster, stage_inputs
from sftjob.app.stores import open_root
from sftjob.app.subject import find_subject
from sftjob.app.submission import Durable, Submission, component_of, decide, is_workload
from sftjob.app.where import Where
from sftjob.cluster.api import Cluster, Kind, connect
from sftjob.cluster.fields import part, text
from sftjob.cluster.kinds import kind_of
from sftjob.cluster.objects import Workload, read_workload
from sftjob.cluster.runs import check_namespace, job_selector, pod_selector
from sftjob.contract import Component, Label, keys
from sftjob.errors import (
    ClusterUnavailable,
    ConfigurationError,
    Conflict,
    Denied,
    InputMissing,
    ObjectMissing,
    SftjobError,
    Unavailable,
)
from sftjob.inputs import base_name, silent
from sftjob.place import Placement, place
from sftjob.render import Manifest, render
from sftjob.render.manifest import queue_labels
from sftjob.resolve import resolve
from sftjob.spec import LoadedSpec, LocalModel, Profile
from sftjob.storage import ObjectStore
from sftjob.storage.base import exists

Progress = Callable[[str], None]
_DELETION_MARGIN_SECONDS: Final = 120
"""On top of the grace period that pods have to save what they hold."""
_LOOK_SECONDS: Final = 10


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What came of it."""

    run_id: str
    namespace: str
    said: str
    """What was found there, after the run's id; empty for a new run."""
    applied: tuple[str, ...]
    """`kind/name`, in order; nothing where nothing was to be done."""
    done: bool
    """The results are in the store already."""


def submit(
    loaded: LoadedSpec,
    where: Where,
    *,
    config: Path | None = None,
    new_run: bool = False,
    dry_run: bool = False,
    progress: Progress = silent,
) -> Submitted:
    """Pins, asks the server whether it takes the objects, uploads what only this machine has, and applies.

    The objects are those that `render` gives. Nothing is uploaded or deleted before the server has accepted all of
    them.

    Args:
        loaded: the spec.
        where: profile, cluster, namespace and the store's address from here.
        config: config.json of the model, where the spec names none on this machine.
        new_run: start over under another id.
        dry_run: stop when the server has accepted the objects.
        progress: is given lines for people.

    Raises:
        SftjobError: the spec or an input is wrong, with file and line; the server refuses; cluster or store fail.
    """
    job = pin_for_cluster(loaded, new_run=new_run, progress=progress)
    try:
        profile = _profile(where, progress)
        placement = place(job.spec, profile)
        _plan(loaded, job, config, progress)
    except SftjobError as error:
        raise loaded.located(error) from error
    manifests = render(placement, job.spec)
    cluster = connect(context=where.context, namespace=profile.namespace)
    check_namespace(cluster)
    root = _root(job, profile, where, progress)
    found = decide(manifests, _workloads(cluster, job.run_id), _durable(job, root, progress))
    if found.absent_only:
        gone = {each.name for each in found.remove}
        missing = (
            each
            for each in found.apply
            if (text(each, "metadata", "name") in gone and is_workload(each)) or not _is_there(cluster, each)
        )
        found = replace(found, apply=tuple(missing))
    _dry_run(cluster, found, progress)
    if dry_run:
        return _told(job, cluster, found, applied=())
    if root is not None and found.apply:
        stage_inputs(job, root, progress=progress)
    _remove(cluster, found, placement, progress)
    applied = tuple(_apply(cluster, found, placement, progress))
    return _told(job, cluster, found, applied=applied)


def _profile(where: Where, progress: Progress) -> Profile:
    profile = find_profile(where.profile, progress=progress)
    return profile.model_copy(update={"namespace": where.namespace}) if where.namespace else profile


def _plan(loaded: LoadedSpec, job: PinnedJob, config: Path | None, progress: Progress) -> None:
    """Refuses what cannot train or does not fit, where the model's config is at hand."""
    if config is None and not isinstance(loaded.spec.model, LocalModel):
        progress(f"unknown  whether settings fit {base_name(job.spec.model)}: give its config.json with --config")
        return
    facts = read_facts(loaded, config)
    resolve(job.spec, facts)
    progress(verdict(plan_of(job.spec, facts)))


def _root(job: PinnedJob, profile: Profile, where: Where, progress: Progress) -> ObjectStore | None:
    """The store; None where this machine cannot use it and need not: pods see for themselves what is done."""
    try:
        return open_root(job.spec, profile, endpoint_url=where.endpoint_url)
    except (Denied, Unavailable, ConfigurationError) as error:
        if job.inputs:
            raise
        progress(f"note     whether the run is done already is not known here: {error}")
        return None


def _durable(job: PinnedJob, root: ObjectStore | None, progress: Progress) -> Durable:
    if root is None:
        return Durable(trained=False, evaluated=False, known=False)
    try:
        subject = find_subject(job.spec, root)
    except InputMissing:
        return Durable(trained=False, evaluated=False)
    if job.spec.export.merge and subject.export.merged is None:
        progress(f"note     it has published no merged model; sftjob merge {subject.store.uri} -o DIR makes one of it")
    done = exists(subject.store, keys.evaluation(subject.eval_id, keys.SUCCESS))
    return Durable(trained=True, evaluated=done)


def _workloads(cluster: Cluster, run_id: str) -> list[Workload]:
    """Of all revisions: a newer sftjob names the same run's objects otherwise."""
    found: list[Manifest] = [
        {**each, "kind": Kind.JOB.kind} for each in cluster.find(Kind.JOB, labels=job_selector(run_id))
    ]
    # No JobSets here, or none that this person may see: then no run is one.
    with suppress(ObjectMissing, Denied):
        found += [{**each, "kind": Kind.JOBSET.kind} for each in cluster.find(Kind.JOBSET, labels=pod_selector(run_id))]
    return [read_workload(each) for each in found]


def _dry_run(cluster: Cluster, found: Submission, progress: Progress) -> None:
    """Every refusal of the server at once, before anything is changed."""
    problems: dict[type[SftjobError], list[SftjobError]] = {}
    for manifest in found.apply:
        try:
            # What another manager owns is no matter yet: it may be an object that will be gone.
            cluster.apply(manifest, dry_run=True, force=True)
        except ClusterUnavailable:
            raise
        except SftjobError as error:
            problems.setdefault(type(error), []).append(_explained(error, manifest))
    if problems:
        first, *_ = problems.values()
        # Of several objects of one kind the server says the same.
        raise type(first[0])(dict.fromkeys(problem for error in first for problem in error.problems))
    if found.apply:
        progress(f"accepted {len(found.apply)} objects by the server's dry run in namespace {cluster.namespace}")


def _explained(error: SftjobError, manifest: Manifest) -> SftjobError:
    """The same error with what a person can do in the spec or profile."""
    kind = str(manifest.get("kind"))
    hint = ""
    if isinstance(error, Denied) and kind == "Role":
        hint = "`kubernetes: {evaluation: cli}` needs no Role: `sftjob wait` then starts the evaluation"
    elif isinstance(error, ObjectMissing) and kind == "JobSet":
        hint = "install JobSet, or write `engine: batch` in the profile"
    if not hint:
        return error
    return type(error)(replace(each, hint=f"{each.hint}; {hint}" if each.hint else hint) for each in error.problems)


def _remove(cluster: Cluster, found: Submission, placement: Placement, progress: Progress) -> None:
    """Deletes in the foreground and waits: a name is free when the pods are gone."""
    for each in found.remove:
        kind = Kind.JOBSET if each.jobset else Kind.JOB
        progress(f"deleting {kind.kind.lower()}/{each.name}")
        try:
            cluster.delete(kind, each.name, uid=each.uid)
        except (ObjectMissing, Conflict):
            continue  # Somebody else was quicker; what has its name by now is not ours to delete.
    deadline = time.monotonic() + placement.termination_grace_period_seconds + _DELETION_MARGIN_SECONDS
    for each in found.remove:
        _await_gone(cluster, Kind.JOBSET if each.jobset else Kind.JOB, each, deadline)


def _await_gone(cluster: Cluster, kind: Kind, workload: Workload, deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            there = cluster.get(kind, workload.name)
        except ObjectMissing:
            return
        if text(there, "metadata", "uid") != workload.uid and not text(there, "metadata", "deletionTimestamp"):
            return  # Somebody else has submitted it again meanwhile.
        named = {"metadata.name": workload.name}
        if any(event == "DELETED" for event, _ in _until_deleted(cluster, kind, named)):
            return
    raise ClusterUnavailable(
        f"{kind.kind.lower()}/{workload.name} is still being deleted",
        hint=f"kubectl get pods -n {cluster.namespace} -l {Label.RUN_ID.value}={workload.run_id}",
    )


def _until_deleted(cluster: Cluster, kind: Kind, named: dict[str, str]) -> Iterator[tuple[str, Manifest]]:
    for event, manifest in cluster.watch(kind, fields=named, seconds=_LOOK_SECONDS):
        yield event, manifest
        if event == "DELETED":
            return


def _apply(cluster: Cluster, found: Submission, placement: Placement, progress: Progress) -> Iterator[str]:
    for manifest in found.apply:
        told = f"{kind_of(manifest).kind.lower()}/{text(manifest, 'metadata', 'name')}"
        if found.resume and is_workload(manifest) and component_of(manifest) == Component.EVAL:
            _start(cluster, manifest, placement)
        else:
            cluster.apply(manifest)
        progress(f"applied  {told}")
        yield told


def _is_there(cluster: Cluster, manifest: Manifest) -> bool:
    try:
        cluster.get(kind_of(manifest), text(manifest, "metadata", "name"))
    except ObjectMissing:
        return False
    return True


def _start(cluster: Cluster, manifest: Manifest, placement: Placement) -> None:
    """The eval Job without a gate: what it would have changed is changed here."""
    labels = queue_labels(placement)
    name = text(manifest, "metadata", "name")
    if _is_there(cluster, manifest):
        # Not by apply: whoever has applied it suspended owns that field.
        cluster.patch(Kind.JOB, name, {"metadata": {"labels": {**labels}}} if labels else {"spec": {"suspend": False}})
        return
    started = copy.deepcopy(manifest)
    if labels:
        part(started, "metadata", "labels").update(labels)
    else:
        part(started, "spec")["suspend"] = False
    cluster.apply(started)


def _told(job: PinnedJob, cluster: Cluster, found: Submission, *, applied: Sequence[str]) -> Submitted:
    return Submitted(
        run_id=job.run_id, namespace=cluster.namespace, said=found.said, applied=tuple(applied), done=found.done
    )
