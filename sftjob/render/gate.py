"""The gate: a small Job that waits for the training and lets the evaluation start. It alone may ask the cluster."""

from typing import Final

from sftjob.contract import Component, Mount
from sftjob.place import Placement
from sftjob.render.env import gate_environment
from sftjob.render.job import indexed_job
from sftjob.render.manifest import Identity, Json, Manifest, metadata, strings
from sftjob.render.objects import service_account
from sftjob.render.pod import (
    credentials_mounts,
    credentials_volumes,
    pod_template,
    spec_volume,
    workload_container,
)

GATE: Final = "gate"
_GRACE_SECONDS: Final = 30
_BACKOFF_LIMIT: Final = 10
"""It keeps no state, so it may start again often; interruptions and evictions do not count."""
_CPU: Final = "100m"
_CPU_LIMIT: Final = "1"
_MEMORY: Final = "256Mi"
_DISK: Final = "128Mi"
_TMP: Final = "32Mi"


def gate_service_account(placement: Placement, identity: Identity) -> Manifest:
    """Of the gate alone. It has the cloud identity of the other pods, since it reads the store."""
    return service_account(placement, identity)


def gate_role(placement: Placement, identity: Identity) -> Manifest:
    """Exactly this run's objects: look at the training; look at, resume and delete the evaluation."""
    train, evaluation = identity.of(Component.TRAIN).job, identity.of(Component.EVAL).job
    jobs: list[Json] = [
        {
            "apiGroups": ["batch"],
            "resources": ["jobs"],
            "resourceNames": [evaluation],
            "verbs": ["get", "patch", "delete"],
        }
    ]
    group, resource = ("jobset.x-k8s.io", "jobsets") if placement.engine == "jobset" else ("batch", "jobs")
    look: Manifest = {"apiGroups": [group], "resources": [resource], "resourceNames": [train], "verbs": ["get"]}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata(identity.job, placement, identity),
        "rules": [look, *jobs],
    }


def gate_role_binding(placement: Placement, identity: Identity) -> Manifest:
    """Gives the Role to the gate's account."""
    subject: Manifest = {"kind": "ServiceAccount", "name": placement.service_accounts.gate or identity.service_account}
    if placement.namespace:
        subject["namespace"] = placement.namespace
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata(identity.job, placement, identity),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": identity.job},
        "subjects": [subject],
    }


def gate_job(placement: Placement, image: str, identity: Identity) -> Manifest:
    """Lives until the evaluation has ended, because applying the manifests again suspends it again."""
    return indexed_job(
        placement,
        identity,
        container=GATE,
        template=_pod(placement, image, identity),
        backoff_limit=_BACKOFF_LIMIT,
    )


def _pod(placement: Placement, image: str, identity: Identity) -> Manifest:
    return pod_template(
        placement,
        identity,
        container=workload_container(
            GATE,
            image,
            module="sftjob.gate",
            environment=gate_environment(placement, identity),
            resources=_resources(placement),
            mounts=[
                {"name": "spec", "mountPath": Mount.SPEC.value, "readOnly": True},
                {"name": "tmp", "mountPath": "/tmp"},
                *credentials_mounts(placement),
            ],
        ),
        volumes=[
            spec_volume(identity),
            {"name": "tmp", "emptyDir": {"sizeLimit": _TMP}},
            *credentials_volumes(placement),
        ],
        size=None,
        grace_seconds=_GRACE_SECONDS,
    )


def _resources(placement: Placement) -> Manifest:
    promised = {"memory": _MEMORY, "ephemeral-storage": _DISK}
    limit = {"cpu": _CPU_LIMIT} if placement.cpu_limit else {}
    return {"requests": strings({"cpu": _CPU, **promised}), "limits": strings({**limit, **promised})}
