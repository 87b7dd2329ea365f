"""The training pod. It passes Pod Security `restricted`: https://kubernetes.io/docs/concepts/security/pod-security-standards/."""

from typing import Final

from sftjob.contract import SPEC_FILE, Mount
from sftjob.place import Placement
from sftjob.render.env import CREDENTIALS_FILE, HUB_TOKEN_FILE, environment
from sftjob.render.manifest import Identity, Json, Manifest, present, strings
from sftjob.spec.profile import SecretKey

TRAINER: Final = "trainer"
GPU_RESOURCE: Final = "nvidia.com/gpu"

_USER: Final = 10001
_OWNER_AND_GROUP_READ: Final = 0o440
_KEEP_NODE: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Nodes are not emptied for tidiness while a pod trains; the user's own annotations win."""


def train_pod(placement: Placement, identity: Identity) -> Manifest:
    """The template of the train Job's pod."""
    return {
        "metadata": {
            "labels": strings(identity.labels(placement)),
            "annotations": strings({**_KEEP_NODE, **placement.annotations}),
        },
        "spec": present(
            {
                # Each attempt is a pod of its own: its log stays, and podFailurePolicy sees its exit code.
                "restartPolicy": "Never",
                # With it pod 0 has a name under which its peers find it.
                "subdomain": identity.service if placement.nodes > 1 else None,
                "serviceAccountName": identity.service_account,
                "automountServiceAccountToken": False,
                # Otherwise every Service of the namespace becomes a dozen environment variables.
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": placement.termination_grace_period_seconds,
                "priorityClassName": placement.priority_class_name,
                "imagePullSecrets": [{"name": name} for name in placement.image_pull_secrets] or None,
                "nodeSelector": strings(placement.node_selector) or None,
                "tolerations": [each.model_dump(exclude_none=True) for each in placement.tolerations] or None,
                "securityContext": _pod_security(),
                "containers": [_trainer(placement, identity)],
                "volumes": _volumes(placement, identity),
            }
        ),
    }


def _pod_security() -> Manifest:
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _trainer(placement: Placement, identity: Identity) -> Manifest:
    return {
        "name": TRAINER,
        "image": placement.image,
        "imagePullPolicy": "IfNotPresent",
        # No shell: signals reach PID 1 alone, and a shell would keep SIGTERM to itself.
        "command": ["python", "-m", "sftjob.train"],
        "env": environment(placement, identity),
        "resources": _resources(placement),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(placement),
    }


def _resources(placement: Placement) -> Manifest:
    """Memory and disk are promised in full; processor time is not capped, since throttling stalls data loading."""
    promised: Manifest = {"memory": placement.memory, "ephemeral-storage": placement.ephemeral_storage}
    gpus: Manifest = {GPU_RESOURCE: placement.gpus_per_node} if placement.gpus_per_node else {}
    return {"requests": {"cpu": placement.cpu, **promised}, "limits": {**promised, **gpus}}


def _mounts(placement: Placement) -> list[Json]:
    mounts: list[Json] = [
        {"name": "spec", "mountPath": Mount.SPEC.value, "readOnly": True},
        {"name": "workspace", "mountPath": Mount.WORK.value},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
    ]
    if placement.credentials_secret:
        mounts.append({"name": "credentials", "mountPath": Mount.CREDENTIALS.value, "readOnly": True})
    if placement.hub_token_secret:
        mounts.append({"name": "hub-token", "mountPath": Mount.HUB_TOKEN.value, "readOnly": True})
    return mounts


def _volumes(placement: Placement, identity: Identity) -> list[Json]:
    volumes: list[Json] = [
        {
            "name": "spec",
            "configMap": {"name": identity.config_map, "items": [{"key": SPEC_FILE, "path": SPEC_FILE}]},
        },
        {"name": "workspace", "emptyDir": {"sizeLimit": placement.workspace_size}},
        {"name": "tmp", "emptyDir": {"sizeLimit": placement.tmp_size}},
        # The runtime's own /dev/shm has 64 MiB, too few for data loaders: https://github.com/pytorch/pytorch/issues/16979
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": placement.shared_memory}},
    ]
    if placement.credentials_secret:
        volumes.append(_secret_volume("credentials", placement.credentials_secret, CREDENTIALS_FILE))
    if placement.hub_token_secret:
        volumes.append(_secret_volume("hub-token", placement.hub_token_secret, HUB_TOKEN_FILE))
    return volumes


def _secret_volume(name: str, secret: SecretKey, path: str) -> Manifest:
    """One key as a file: unlike a variable it shows up in no process list and no crash report."""
    return {
        "name": name,
        "secret": {
            "secretName": secret.name,
            "defaultMode": _OWNER_AND_GROUP_READ,
            "items": [{"key": secret.key, "path": path}],
        },
    }
