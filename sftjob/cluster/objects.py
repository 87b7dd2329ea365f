"""What the dicts of the API say, read without trust in their shape: another version may leave out or add anything."""

import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sftjob.cluster.fields import number, part, parts, text, time_at
from sftjob.contract import HELD_QUEUE, QUEUE_LABEL, Label
from sftjob.render import Manifest

INDEX_LABEL: Final = "batch.kubernetes.io/job-completion-index"
"""An annotation as well, which older clusters have alone."""
_JOB_ENDS: Final = {"Complete": True, "Failed": False}
_JOBSET_ENDS: Final = {"Completed": True, "Failed": False}


@dataclass(frozen=True, kw_only=True)
class Finish:
    """A Job's terminal condition. `FailureTarget` and `SuccessCriteriaMet` are only on the way to one."""

    succeeded: bool
    reason: str = ""
    """The controller's word: `PodFailurePolicy`, `BackoffLimitExceeded`, `DeadlineExceeded`."""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A Job or a JobSet."""

    name: str
    namespace: str
    uid: str
    jobset: bool
    component: str
    run_id: str
    revision: str
    created: datetime | None
    suspended: bool
    queue: str
    """Kueue's, from the label; empty without one."""
    deleting: bool
    pods: int
    """That it runs at a time."""
    gpus_per_pod: int
    ready: int
    """Pods."""
    failed: int
    """Pods that have ended in a way that counts; of a JobSet 0."""
    restarts: int
    """After failures that count; interruptions are not told apart from the first start."""
    finish: Finish | None
    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class Terminated:
    """How a container ended."""

    exit_code: int
    reason: str = ""
    """The kubelet's word: `Error`, `OOMKilled`, `Completed`."""
    message: str = ""
    """What it left behind, or the end of its log."""
    finished: datetime | None = None

    @property
    def told(self) -> str:
        """Why, in one line: the reason that our own process has left, else the last line of the log."""
        try:
            left = json.loads(self.message)
        except ValueError:
            return next((line.strip() for line in reversed(self.message.splitlines()) if line.strip()), "")
        return " ".join(str(left.get("reason") or "").split()) if isinstance(left, dict) else ""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Why a container has not started."""

    reason: str
    """The kubelet's word: `ContainerCreating`, `ImagePullBackOff`, `CreateContainerConfigError`."""
    message: str
    image: str


@dataclass(frozen=True, kw_only=True)
class Pod:
    """One pod of a run."""

    name: str
    uid: str
    component: str
    job: str
    """Name of the Job that owns it."""
    index: int
    phase: str
    """`Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`."""
    node: str
    created: datetime | None
    deleting: bool
    container: str
    """Name of ours, the first one: sidecars come after it."""
    started: bool
    """Its container runs or has run: there is a log."""
    waiting: Waiting | None
    terminated: Terminated | None
    unschedulable: str
    """The scheduler's message; empty when the pod has a node or was not looked at yet."""
    scheduling_gated: bool
    disrupted: str
    """Why it is being evicted, from its DisruptionTarget condition."""
    reason: str
    """`status.reason`, for instance `Evicted`."""
    manifest: Manifest

    @property
    def ended(self) -> bool:
        """It will not run again."""
        return self.phase in ("Succeeded", "Failed")


def read_workload(manifest: Manifest) -> Workload:
    """A Job or JobSet; whatever is absent reads as nothing."""
    jobset = manifest.get("kind") == "JobSet"
    labels = part(manifest, "metadata", "labels")
    job = part(manifest, "spec", "replicatedJobs", 0, "template", "spec") if jobset else part(manifest, "spec")
    ends = _JOBSET_ENDS if jobset else _JOB_ENDS
    replicated = part(manifest, "status", "replicatedJobsStatus", 0)
    status = part(manifest, "status")
    name, run_id = text(manifest, "metadata", "name"), str(labels.get(Label.RUN_ID.value) or "")
    finish, pods = _finish(status, ends), number(job, "parallelism") or 1
    return Workload(
        name=name,
        namespace=text(manifest, "metadata", "namespace"),
        uid=text(manifest, "metadata", "uid"),
        jobset=jobset,
        component=str(labels.get(Label.COMPONENT.value) or ""),
        run_id=run_id,
        # The label is `<run_id>-<revision>`; the name carries it, too: `<run_id>-<revision>-train`.
        revision=str(labels.get(Label.REVISION.value) or name.rpartition("-")[0]).removeprefix(f"{run_id}-"),
        created=time_at(manifest, "metadata", "creationTimestamp"),
        suspended=part(manifest, "spec").get("suspend") is True,
        queue="" if labels.get(QUEUE_LABEL) == HELD_QUEUE else str(labels.get(QUEUE_LABEL) or ""),
        deleting=bool(text(manifest, "metadata", "deletionTimestamp")),
        pods=pods,
        gpus_per_pod=_gpus(job),
        # A JobSet counts Jobs that are ready, of which there is one.
        ready=number(replicated, "ready") * pods if jobset else number(status, "ready"),
        failed=0 if jobset else number(status, "failed"),
        restarts=number(status, "restarts") if jobset else _restarts(number(status, "failed"), pods, finish),
        finish=finish,
        manifest=manifest,
    )


def read_pod(manifest: Manifest) -> Pod:
    """A pod; whatever is absent reads as nothing."""
    labels = part(manifest, "metadata", "labels")
    annotations = part(manifest, "metadata", "annotations")
    index = labels.get(INDEX_LABEL) or annotations.get(INDEX_LABEL) or "0"
    container = text(manifest, "spec", "containers", 0, "name")
    state = _container_state(manifest, container)
    scheduled, disrupted = _condition(manifest, "PodScheduled"), _condition(manifest, "DisruptionTarget")
    gated = scheduled.get("reason") == "SchedulingGated"
    return Pod(
        name=text(manifest, "metadata", "name"),
        uid=text(manifest, "metadata", "uid"),
        component=str(labels.get(Label.COMPONENT.value) or ""),
        job=str(labels.get("batch.kubernetes.io/job-name") or ""),
        index=int(str(index)) if str(index).isdigit() else 0,
        phase=text(manifest, "status", "phase") or "Unknown",
        node=text(manifest, "spec", "nodeName"),
        created=time_at(manifest, "metadata", "creationTimestamp"),
        deleting=bool(text(manifest, "metadata", "deletionTimestamp")),
        container=container,
        started=bool(state.get("running") or state.get("terminated")),
        waiting=_waiting(manifest),
        terminated=_terminated(state),
        unschedulable=str(scheduled.get("message") or "") if scheduled.get("status") == "False" and not gated else "",
        scheduling_gated=gated,
        disrupted=str(disrupted.get("message") or disrupted.get("reason") or "")
        if disrupted.get("status") == "True"
        else "",
        reason=text(manifest, "status", "reason"),
        manifest=manifest,
    )


def _gpus(job: Manifest) -> int:
    """Whole devices of any make that the pod's containers ask for: `nvidia.com/gpu`, `amd.com/gpu`, MIG slices."""
    limits = [part(each, "resources", "limits") for each in parts(job, "template", "spec", "containers")]
    named = [(name, value) for each in limits for name, value in each.items()]
    return sum(int(str(value)) for name, value in named if is_gpu(name) and str(value).isdigit())


def is_gpu(resource: str) -> bool:
    """Whether a resource's name is that of GPUs or of slices of them."""
    vendor, _, name = resource.partition("/")
    return "." in vendor and name.startswith(("gpu", "mig-"))


def _restarts(failed: int, pods: int, finish: Finish | None) -> int:
    """A gang fails together: all of its pods are one start. The last failure of a failed Job started nothing."""
    starts = math.ceil(failed / pods)
    return max(starts - 1, 0) if finish is not None and not finish.succeeded else starts


def _finish(status: Manifest, ends: dict[str, bool]) -> Finish | None:
    for condition in parts(status, "conditions"):
        kind = text(condition, "type")
        if kind in ends and condition.get("status") == "True":
            return Finish(
                succeeded=ends[kind],
                reason=text(condition, "reason"),
                message=text(condition, "message"),
            )
    return None


def _condition(manifest: Manifest, kind: str) -> Manifest:
    return next((each for each in parts(manifest, "status", "conditions") if each.get("type") == kind), {})


def _container_state(manifest: Manifest, name: str) -> Manifest:
    statuses = parts(manifest, "status", "containerStatuses")
    return part(next((each for each in statuses if each.get("name") == name), {}), "state")


def _waiting(manifest: Manifest) -> Waiting | None:
    """The first container that waits; init containers come first."""
    for kind in ("initContainerStatuses", "containerStatuses"):
        for status in parts(manifest, "status", kind):
            waiting = part(status, "state", "waiting")
            if waiting:
                return Waiting(
                    reason=text(waiting, "reason"), message=text(waiting, "message"), image=text(status, "image")
                )
    return None


def _terminated(state: Manifest) -> Terminated | None:
    ended = part(state, "terminated")
    if not ended:
        return None
    return Terminated(
        exit_code=number(ended, "exitCode"),
        reason=text(ended, "reason"),
        message=text(ended, "message"),
        finished=time_at(ended, "finishedAt"),
    )
