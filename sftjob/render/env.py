"""The environment of containers: what `contract.Env` names, and what their libraries listen to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from sftjob.contract import RENDEZVOUS_PORT, SPEC_FILE, Component, Env, Mount
from sftjob.place import ContainerSize, Placement
from sftjob.render.manifest import Identity, Json, Manifest

CREDENTIALS_FILE: Final = "credentials"
HUB_TOKEN_FILE: Final = "token"

_CACHES: Final = {
    "HOME": "home",
    "XDG_CACHE_HOME": "cache",
    "HF_HOME": "cache/huggingface",
    "MPLCONFIGDIR": "cache/matplotlib",
    "TORCH_EXTENSIONS_DIR": "cache/torch-extensions",
    "TORCHINDUCTOR_CACHE_DIR": "cache/torch-inductor",
    "TRITON_CACHE_DIR": "cache/triton",
}
"""Below the work folder: the root file system is read-only."""
_SPEC_PATH: Final = f"{Mount.SPEC.value}/{SPEC_FILE}"
_OWNER_LABEL: Final = {
    "batch": "batch.kubernetes.io/controller-uid",
    "jobset": "jobset.sigs.k8s.io/jobset-uid",
}
"""Whose value is the UID of the Job, or of the JobSet, that a pod belongs to."""
_SHUTDOWN_MARGIN_SECONDS: Final = 30
_AWS_DOMAINS: Final = (".amazonaws.com", ".amazonaws.com.cn")


@dataclass(frozen=True)
class FieldRef:
    """A value that the kubelet takes from the pod itself (the downward API)."""

    path: str


@dataclass(frozen=True)
class SecretRef:
    """A value that the kubelet takes from a Secret; it is in no manifest."""

    name: str
    key: str


Values: TypeAlias = Mapping[str, str | FieldRef | SecretRef | None]
"""Variables by name; those that are None are left out."""


def train_environment(placement: Placement, identity: Identity) -> list[Json]:
    """All variables of the training container, each once; the platform's own win over those of libraries."""
    size = placement.train
    return _variables(
        {
            **_contract(placement),
            Env.OWNER.value: FieldRef(f"metadata.labels['{_OWNER_LABEL[placement.engine]}']"),
            # Env.POD_INDEX is set by the Job controller.
            Env.POD_UID.value: FieldRef("metadata.uid"),
            Env.GRACE_SECONDS.value: str(placement.termination_grace_period_seconds),
            **_rendezvous(placement, identity),
            **_work(placement, size),
            # torchrun kills its ranks 30 s after SIGTERM by itself, amid a checkpoint:
            # https://github.com/pytorch/pytorch/issues/119856
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(
                placement.termination_grace_period_seconds - _SHUTDOWN_MARGIN_SECONDS
            ),
            "WANDB_API_KEY": SecretRef(secret.name, secret.key) if (secret := placement.wandb_secret) else None,
            **_storage(placement),
            **placement.env,
        }
    )


def evaluation_environment(placement: Placement, size: ContainerSize) -> list[Json]:
    """All variables of the evaluation container."""
    return _variables({**_contract(placement), **_work(placement, size), **_storage(placement), **placement.env})


def gate_environment(placement: Placement, identity: Identity) -> list[Json]:
    """All variables of the gate."""
    kind = "jobset" if placement.engine == "jobset" else "job"
    return _variables(
        {
            Env.SPEC.value: _SPEC_PATH,
            Env.STORAGE_URI.value: placement.storage_uri,
            Env.NAMESPACE.value: FieldRef("metadata.namespace"),
            Env.TRAIN.value: f"{kind}/{identity.of(Component.TRAIN).job}",
            Env.EVAL.value: identity.of(Component.EVAL).job,
            Env.QUEUE.value: placement.queue.name if placement.queue else None,
            "HOME": "/tmp",
            **_python(),
            **_storage(placement),
        }
    )


def _contract(placement: Placement) -> Values:
    return {
        Env.SPEC.value: _SPEC_PATH,
        Env.WORK.value: Mount.WORK.value,
        Env.CACHE.value: Mount.CACHE.value if placement.model_cache else None,
        Env.STORAGE_URI.value: placement.storage_uri,
    }


def _rendezvous(placement: Placement, identity: Identity) -> Values:
    if placement.nodes == 1:
        return {}
    return {
        Env.MASTER_ADDR.value: identity.first_pod(placement),
        Env.MASTER_PORT.value: str(RENDEZVOUS_PORT),
        # Which network NCCL has found is the first question when several nodes are slow.
        "NCCL_DEBUG": "WARN",
    }


def _work(placement: Placement, size: ContainerSize) -> Values:
    """What the libraries of a container that works listen to."""
    return {
        **{name: f"{Mount.WORK.value}/{folder}" for name, folder in _CACHES.items()},
        **_python(),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN_PATH": f"{Mount.HUB_TOKEN.value}/{HUB_TOKEN_FILE}" if placement.hub_token_secret else None,
        "OMP_NUM_THREADS": str(size.omp_num_threads),
        # CUDA images say `all`, which some runtimes take for a permission.
        "NVIDIA_VISIBLE_DEVICES": None if size.gpus else "void",
    }


def _python() -> Values:
    # The image need not know the user's number, and torch asks for its name.
    return {"USER": "sftjob", "PYTHONUNBUFFERED": "1"}


def _storage(placement: Placement) -> Values:
    """What every AWS SDK reads; boto3 itself listens to AWS_DEFAULT_REGION, the others to AWS_REGION."""
    credentials = f"{Mount.CREDENTIALS.value}/{CREDENTIALS_FILE}" if placement.credentials_secret else None
    # Stores other than AWS often refuse the checksums that SDKs send by default: https://github.com/boto/boto3/issues/4398
    checksums = "when_required" if placement.endpoint_url and not _is_aws(placement.endpoint_url) else None
    return {
        "AWS_SHARED_CREDENTIALS_FILE": credentials,
        "AWS_ENDPOINT_URL_S3": placement.endpoint_url,
        "AWS_REGION": placement.region,
        "AWS_DEFAULT_REGION": placement.region,
        "AWS_REQUEST_CHECKSUM_CALCULATION": checksums,
        "AWS_RESPONSE_CHECKSUM_VALIDATION": checksums,
    }


def _is_aws(endpoint_url: str) -> bool:
    return (urlsplit(endpoint_url).hostname or "").endswith(_AWS_DOMAINS)


def _variables(values: Values) -> list[Json]:
    return [_variable(name, value) for name, value in values.items() if value is not None]


def _variable(name: str, value: str | FieldRef | SecretRef) -> Manifest:
    """Dollars are doubled: Kubernetes would replace `$(NAME)` in a value."""
    if isinstance(value, FieldRef):
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": value.path}}}
    if isinstance(value, SecretRef):
        return {"name": name, "valueFrom": {"secretKeyRef": {"name": value.name, "key": value.key}}}
    return {"name": name, "value": value.replace("$", "$$")}
