"""Objects as a cluster has them, made for tests; shapes and sentences are those of Kubernetes 1.34."""

from typing import Any

from sftjob.contract import Component, Label

RUN = "demo-0a1b2c3d"
REVISION = "9f3e"
MINUTE = "2026-11-24T10:{:02d}:00Z"


def labels(component: str, run: str = RUN, revision: str = REVISION) -> dict[str, str]:
    return {
        Label.NAME.value: "sftjob",
        Label.COMPONENT.value: component,
        Label.RUN_ID.value: run,
        Label.REVISION.value: revision,
    }


def job(
    component: str = Component.TRAIN.value,
    *,
    run: str = RUN,
    revision: str = REVISION,
    pods: int = 1,
    gpus: int = 0,
    suspend: bool = False,
    queue: str = "",
    deleting: bool = False,
    ended: str = "",
    reason: str = "",
    message: str = "",
    minute: int = 0,
    env: dict[str, str] | None = None,
    **status: Any,
) -> dict[str, Any]:
    """A Job. `ended` is `Complete` or `Failed`."""
    name = f"{run}-{revision}-{component}"
    deletion = {"deletionTimestamp": MINUTE.format(30)} if deleting else {}
    queued = {"kueue.x-k8s.io/queue-name": queue} if queue else {}
    conditions = [{"type": "FailureTarget", "status": "True", "reason": "early"}]
    conditions += [{"type": ended, "status": "True", "reason": reason, "message": message}] if ended else []
    container = {
        "name": "trainer",
        "resources": {"limits": {"memory": "1Gi"} | ({"nvidia.com/gpu": gpus} if gpus else {})},
    }
    container["env"] = [{"name": name, "value": value} for name, value in (env or {}).items()]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-{name}",
            "labels": labels(component, run, revision) | queued,
            "creationTimestamp": MINUTE.format(minute),
            **deletion,
        },
        "spec": {
            "parallelism": pods,
            "completions": pods,
            "suspend": suspend,
            "template": {"spec": {"containers": [container], "terminationGracePeriodSeconds": 600}},
        },
        "status": {"conditions": conditions, **status},
    }


def jobset(*, ended: str = "", message: str = "", restarts: int = 0, ready: int = 0, pods: int = 2) -> dict[str, Any]:
    """A JobSet of one replicated Job. `ended` is `Completed` or `Failed`."""
    inner = job(pods=pods, gpus=8)
    conditions = [{"type": ended, "status": "True", "reason": "x", "message": message}] if ended else []
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": inner["metadata"],
        "spec": {"replicatedJobs": [{"name": "w", "template": {"spec": inner["spec"]}}]},
        "status": {
            "conditions": conditions,
            "restarts": restarts,
            "replicatedJobsStatus": [{"name": "w", "ready": ready, "active": 1}],
        },
    }


def pod(
    component: str = Component.TRAIN.value,
    *,
    index: int = 0,
    suffix: str = "x7k2p",
    phase: str = "Running",
    node: str = "worker",
    exit_code: int | None = None,
    ended_because: str = "Error",
    left: str = "",
    waiting: str = "",
    message: str = "",
    unschedulable: str = "",
    gated: bool = False,
    deleting: bool = False,
    disrupted: str = "",
    minute: int = 1,
    job_name: str = "",
    spec: dict[str, Any] | None = None,
    run: str = RUN,
) -> dict[str, Any]:
    """A pod of one container, which runs unless something else is said."""
    state: dict[str, Any] = {"running": {"startedAt": MINUTE.format(minute)}}
    if waiting or unschedulable or gated or phase == "Pending":
        state = {"waiting": {"reason": waiting or "ContainerCreating", "message": message}}
        phase = "Pending"
    if exit_code is not None:
        phase = "Failed" if exit_code else "Succeeded"
        finished = MINUTE.format(minute + 1)
        state = {
            "terminated": {"exitCode": exit_code, "reason": ended_because, "message": left, "finishedAt": finished}
        }
    scheduled: dict[str, str] = {"type": "PodScheduled", "status": "False" if unschedulable or gated else "True"}
    scheduled |= {"reason": "Unschedulable", "message": unschedulable} if unschedulable else {}
    scheduled |= {"reason": "SchedulingGated", "message": "gated"} if gated else {}
    conditions = [scheduled]
    conditions += [{"type": "DisruptionTarget", "status": "True", "message": disrupted}] if disrupted else []
    named = job_name or f"{run}-{REVISION}-{component}"
    name = f"{named}-{index}-{suffix}"
    own = labels(component, run) | {
        "batch.kubernetes.io/job-name": named,
        "batch.kubernetes.io/job-completion-index": str(index),
    }
    statuses = [] if unschedulable or gated else [{"name": "trainer", "image": "reg/sftjob@sha256:0", "state": state}]
    container = {"name": "trainer", "image": "reg/sftjob@sha256:0", "resources": {"limits": {"nvidia.com/gpu": "8"}}}
    return {
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-{name}",
            "labels": own,
            "creationTimestamp": MINUTE.format(minute),
            **({"deletionTimestamp": MINUTE.format(30)} if deleting else {}),
        },
        "spec": {
            "containers": [container],
            **({} if unschedulable or gated else {"nodeName": node}),
            **(spec or {}),
        },
        "status": {"phase": phase, "conditions": conditions, "containerStatuses": statuses},
    }


def event(reason: str, message: str, name: str, *, minute: int = 2) -> dict[str, Any]:
    """An event about the object of a name."""
    about = {"name": name, "namespace": "ns"}
    return {"involvedObject": about, "reason": reason, "message": message, "lastTimestamp": MINUTE.format(minute)}
