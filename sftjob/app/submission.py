"""What `sftjob submit` does about what is there already. Pure: the whole table is tested without a cluster."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sftjob.cluster.fields import text
from sftjob.cluster.objects import Workload
from sftjob.contract import Component, Label
from sftjob.render import Manifest

_WORKLOADS = ("Job", "JobSet")


@dataclass(frozen=True, kw_only=True)
class Durable:
    """What the store has of a run."""

    trained: bool
    """Its weights are published."""
    evaluated: bool
    """With the evaluation that the spec asks for now."""
    known: bool = True
    """False: the store cannot be read from here, and the Jobs are all there is."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What is to be done, in this order."""

    said: str
    """What was found; empty for a run that is new."""
    remove: tuple[Workload, ...] = ()
    """Jobs whose names stand in the way; they are gone before anything is applied."""
    apply: tuple[Manifest, ...] = ()
    """In their order, those that are there already among them: applying them again changes nothing."""
    resume: bool = False
    """The eval Job among `apply` is to run: no gate comes to start it."""
    absent_only: bool = False
    """Apply what is missing, and leave alone what is there: a gate may have changed it."""
    done: bool = False
    """The results are in the store."""


def decide(manifests: Sequence[Manifest], workloads: Iterable[Workload], durable: Durable) -> Submission:
    """A run that is done is not trained again, one that runs is left alone, and one that failed starts over.

    Args:
        manifests: all that `render` gives for the spec.
        workloads: Jobs and JobSets of the run, of all its revisions.
        durable: what the store has of it.
    """
    found = list(workloads)
    if not durable.known:
        durable = _as_jobs_tell(manifests, found)
    wants_evaluation = any(component_of(each) == Component.EVAL for each in manifests)
    if durable.trained and (durable.evaluated or not wants_evaluation):
        what = "trained and evaluated" if durable.evaluated else "trained, and its spec wants no evaluation"
        return Submission(said=f"is {what}: there is nothing to do", done=True)
    if durable.trained:
        return _evaluate(manifests, _of(found, Component.EVAL))
    running = [each for each in _of(found, Component.TRAIN) if _runs(each)]
    if running:
        return _leave(manifests, running[0], found)
    return Submission(said=_before(_of(found, Component.TRAIN)), remove=tuple(found), apply=tuple(manifests))


def component_of(manifest: Manifest) -> str:
    """`train`, `eval` or `gate`; objects that all of them use are those of `train`."""
    return text(manifest, "metadata", "labels", Label.COMPONENT.value)


def is_workload(manifest: Manifest) -> bool:
    """Whether it is a Job or a JobSet."""
    return manifest.get("kind") in _WORKLOADS


def _as_jobs_tell(manifests: Sequence[Manifest], found: Sequence[Workload]) -> Durable:
    """What is done, from Jobs alone: a training whose evaluation was let go is done, too."""
    evaluations = _of(found, Component.EVAL)
    trained = any(_succeeded(each) for each in _of(found, Component.TRAIN)) or any(
        _runs(each) and not each.suspended for each in evaluations
    )
    ours = {text(each, "metadata", "name") for each in manifests}
    return Durable(
        trained=trained, evaluated=trained and any(_succeeded(each) and each.name in ours for each in evaluations)
    )


def _succeeded(workload: Workload) -> bool:
    return workload.finish is not None and workload.finish.succeeded


def _name_of(manifests: Sequence[Manifest], component: Component) -> str:
    """Of the component's Job or JobSet."""
    jobs = (each for each in manifests if is_workload(each) and component_of(each) == component)
    return next(text(each, "metadata", "name") for each in jobs)


def _of(workloads: Iterable[Workload], component: Component) -> list[Workload]:
    return [each for each in workloads if each.component == component.value]


def _runs(workload: Workload) -> bool:
    """Or waits for its turn; one that is being deleted will do neither."""
    return workload.finish is None and not workload.deleting


def _evaluate(manifests: Sequence[Manifest], evaluations: Sequence[Workload]) -> Submission:
    ours = _name_of(manifests, Component.EVAL)
    for each in evaluations:
        # Under Kueue a Job that has its queue's label is suspended until its turn comes.
        if _runs(each) and (not each.suspended or each.queue):
            return Submission(said=_runs_already(each, ours))
    apply = tuple(
        each
        for each in manifests
        if component_of(each) == Component.EVAL or (component_of(each) == Component.TRAIN and not is_train(each))
    )
    ended = tuple(each for each in evaluations if not _runs(each))
    again = " again" if ended else ""
    return Submission(said=f"is trained; its evaluation is started{again}", remove=ended, apply=apply, resume=True)


def _runs_already(running: Workload, ours: str) -> str:
    if running.name == ours:
        return f"is trained, and its evaluation runs already as job/{ours}"
    return (
        f"is trained; job/{running.name} is another evaluation of it, this spec and profile would make {ours}: wait "
        f"for that one, or sftjob cancel {running.run_id}, then submit again"
    )


def is_train(manifest: Manifest) -> bool:
    """The train Job or JobSet, or the Service that only its pods need."""
    return component_of(manifest) == Component.TRAIN and (is_workload(manifest) or manifest.get("kind") == "Service")


def _leave(manifests: Sequence[Manifest], running: Workload, found: Sequence[Workload]) -> Submission:
    kind = "jobset" if running.jobset else "job"
    state = "waits for its queue" if running.suspended and running.queue else "is running already"
    ours = _name_of(manifests, Component.TRAIN)
    if ours == running.name:
        names = {text(each, "metadata", "name") for each in manifests}
        # A gate that has ended would not start the evaluation any more.
        ended = (each for each in found if each.component == Component.GATE.value and each.finish)
        return Submission(
            said=f"{state} as {kind}/{ours}",
            remove=tuple(each for each in ended if each.name in names),
            apply=tuple(manifests),
            absent_only=True,
        )
    return Submission(
        said=f"{state} as {kind}/{running.name}; this spec and profile would make {ours}: to replace it, "
        f"sftjob cancel {running.run_id}, then submit again"
    )


def _before(trainings: Sequence[Workload]) -> str:
    """How the run's last training ended."""
    if not trainings:
        return ""
    last = max(trainings, key=lambda each: each.created.timestamp() if each.created else 0.0)
    if last.finish is None:
        return "was being deleted and is started again"
    if last.finish.succeeded:
        return "has finished, but its results are not in the store: it is trained again"
    return f"failed ({last.finish.message or last.finish.reason}) and continues from its last checkpoint"
