"""Pods. They pass Pod Security `restricted`: https://kubernetes.io/docs/concepts/security/pod-security-standards/."""

from collections.abc import Mapping
from typing import Final

from sftjob.contract import SPEC_FILE, Component, Mount
from sftjob.place import ContainerSize, Placement
from sftjob.render.env import CREDENTIALS_FILE, HUB_TOKEN_FILE
from sftjob.render.manifest import Identity, Json, Manifest, present, strings
from sftjob.spec.profile import SecretKey

_USER: Final = 10001
_OWNER_AND_GROUP_READ: Final = 0o440
_KEEP_NODE: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Nodes are not emptied for tidiness while a pod works; the user's own annotations win."""


def pod_template(
    placement: Placement,
    identity: Identity,
    *,
    container: Manifest,
    volumes: list[Json],
    size: ContainerSize | None,
    grace_seconds: int,
    annotations: Mapping[str, str] | None = None,
    affinity: Manifest | None = None,
    subdomain: str | None = None,
) -> Manifest:
    """The template of a Job's pods.

    Args:
        size: of a container that works; None for the gate, which asks for next to nothing and fits on any node.
    """
    accounts, gate = placement.service_accounts, identity.component is Component.GATE
    account = (accounts.gate if gate else accounts.pods) or identity.service_account
    on_gpu = size is not None and size.gpus > 0
    return {
        "metadata": _pod_metadata(
            placement, identity, {**(_KEEP_NODE if size else {}), **placement.pod_annotations, **(annotations or {})}
        ),
        "spec": present(
            {
                # Each attempt is a pod of its own: its log stays, and podFailurePolicy sees its exit code.
                "restartPolicy": "Never",
                "subdomain": subdomain,
                "serviceAccountName": account,
                "automountServiceAccountToken": gate,
                # Otherwise every Service of the namespace becomes a dozen environment variables.
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": grace_seconds,
                "hostUsers": placement.host_users,
                "runtimeClassName": placement.runtime_class_name if on_gpu else None,
                "priorityClassName": placement.priority_class_name if size else None,
                "imagePullSecrets": [{"name": name} for name in placement.image_pull_secrets] or None,
                "nodeSelector": strings(size.node_selector) or None if size else None,
                "tolerations": [each.model_dump(exclude_none=True) for each in placement.tolerations]
                # The nodes that are selected may be those with the taint.
                if on_gpu or (size and size.node_selector)
                else None,
                "affinity": affinity,
                "securityContext": _pod_security(),
                "containers": [container],
                "volumes": volumes,
            }
        ),
    }


def workload_container(
    name: str, image: str, *, module: str, environment: list[Json], resources: Manifest, mounts: list[Json]
) -> Manifest:
    """The only container of a pod; it runs one of our modules as PID 1."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        # No shell: signals reach PID 1 alone, and a shell would keep SIGTERM to itself.
        "command": ["python", "-m", module],
        "env": environment,
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def resources(placement: Placement, size: ContainerSize, *, extra: Mapping[str, int] | None = None) -> Manifest:
    """Memory and disk are promised in full; processor time is not capped, since throttling stalls data loading.

    Devices are in both halves: quotas count requests, and Kubernetes wants them equal.
    """
    promised: Manifest = {"memory": size.memory, "ephemeral-storage": size.ephemeral_storage}
    devices: Manifest = {placement.gpu_resource: size.gpus} if size.gpus else {}
    promised |= devices | (dict(extra) if extra else {})
    limit: Manifest = {"cpu": size.cpu} if placement.cpu_limit else {}
    return {"requests": {"cpu": size.cpu, **promised}, "limits": {**limit, **promised}}


def work_mounts(placement: Placement) -> list[Json]:
    """Of a container that works: nothing but these may be written."""
    mounts: list[Json] = [
        {"name": "spec", "mountPath": Mount.SPEC.value, "readOnly": True},
        {"name": "workspace", "mountPath": Mount.WORK.value},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
    ]
    if placement.model_cache:
        mounts.append({"name": "cache", "mountPath": Mount.CACHE.value})
    mounts += credentials_mounts(placement)
    if placement.hub_token_secret:
        mounts.append({"name": "hub-token", "mountPath": Mount.HUB_TOKEN.value, "readOnly": True})
    return mounts


def volumes(placement: Placement, size: ContainerSize, identity: Identity) -> list[Json]:
    """What `work_mounts` mounts."""
    found: list[Json] = [
        spec_volume(identity),
        {"name": "workspace", "emptyDir": {"sizeLimit": size.workspace_size}},
        {"name": "tmp", "emptyDir": {"sizeLimit": size.tmp_size}},
        # The runtime's own /dev/shm has 64 MiB, too few for data loaders: https://github.com/pytorch/pytorch/issues/16979
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": size.shared_memory}},
    ]
    if placement.model_cache:
        claim = placement.model_cache.claim or identity.cache_claim
        found.append({"name": "cache", "persistentVolumeClaim": {"claimName": claim}})
    found += credentials_volumes(placement)
    if placement.hub_token_secret:
        found.append(_secret_volume("hub-token", placement.hub_token_secret, HUB_TOKEN_FILE))
    return found


def spec_volume(identity: Identity) -> Manifest:
    """The authored spec as a file."""
    return {
        "name": "spec",
        "configMap": {"name": identity.config_map, "items": [{"key": SPEC_FILE, "path": SPEC_FILE}]},
    }


def credentials_mounts(placement: Placement) -> list[Json]:
    if not placement.credentials_secret:
        return []
    return [{"name": "credentials", "mountPath": Mount.CREDENTIALS.value, "readOnly": True}]


def credentials_volumes(placement: Placement) -> list[Json]:
    if not placement.credentials_secret:
        return []
    return [_secret_volume("credentials", placement.credentials_secret, CREDENTIALS_FILE)]


def _pod_metadata(placement: Placement, identity: Identity, annotations: Mapping[str, str]) -> Manifest:
    labels = {**identity.labels(placement), **placement.pod_labels}
    return present({"labels": strings(labels), "annotations": strings(annotations) or None})


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


def _pod_security() -> Manifest:
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
