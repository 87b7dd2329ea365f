"""The environment of the training container: what `contract.Env` names, and what its libraries listen to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from sftjob.contract import RENDEZVOUS_PORT, SPEC_FILE, Env, Mount
from sftjob.place import Placement
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


def environment(placement: Placement, identity: Identity) -> list[Json]:
    """All variables of the training container, each once."""
    values: dict[str, str | FieldRef | SecretRef | None] = {
        **_contract(placement),
        **_rendezvous(placement, identity),
        **{name: f"{Mount.WORK.value}/{folder}" for name, folder in _CACHES.items()},
        **_libraries(placement),
        **_storage(placement),
        "WANDB_API_KEY": SecretRef(secret.name, secret.key) if (secret := placement.wandb_secret) else None,
    }
    return [_variable(name, value) for name, value in values.items() if value is not None]


def _contract(placement: Placement) -> Mapping[str, str | FieldRef | None]:
    """Env.POD_INDEX is missing here because the Job controller sets it."""
    return {
        Env.SPEC.value: f"{Mount.SPEC.value}/{SPEC_FILE}",
        Env.WORK.value: Mount.WORK.value,
        Env.OWNER.value: FieldRef("metadata.labels['batch.kubernetes.io/controller-uid']"),
        Env.POD_UID.value: FieldRef("metadata.uid"),
        Env.GRACE_SECONDS.value: str(placement.termination_grace_period_seconds),
        Env.STORAGE_URI.value: placement.storage_uri,
    }


def _rendezvous(placement: Placement, identity: Identity) -> Mapping[str, str]:
    """Pod 0 by the name that the headless Service gives it: it is the same for every attempt's pods."""
    if placement.nodes == 1:
        return {}
    return {
        Env.MASTER_ADDR.value: f"{identity.job}-0.{identity.service}",
        Env.MASTER_PORT.value: str(RENDEZVOUS_PORT),
    }


def _libraries(placement: Placement) -> Mapping[str, str | None]:
    grace = placement.termination_grace_period_seconds
    return {
        # The image need not know the user's number, and torch asks for its name.
        "USER": "sftjob",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN_PATH": f"{Mount.HUB_TOKEN.value}/{HUB_TOKEN_FILE}" if placement.hub_token_secret else None,
        "OMP_NUM_THREADS": str(placement.omp_num_threads),
        # torchrun kills its ranks 30 s after SIGTERM by itself, amid a checkpoint:
        # https://github.com/pytorch/pytorch/issues/119856
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(grace - _SHUTDOWN_MARGIN_SECONDS),
        # CUDA images say `all`, which some runtimes take for a permission.
        "NVIDIA_VISIBLE_DEVICES": None if placement.gpus_per_node else "void",
    }


def _storage(placement: Placement) -> Mapping[str, str | None]:
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


def _variable(name: str, value: str | FieldRef | SecretRef) -> Manifest:
    """Dollars are doubled: Kubernetes would replace `$(NAME)` in a value."""
    if isinstance(value, FieldRef):
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": value.path}}}
    if isinstance(value, SecretRef):
        return {"name": name, "valueFrom": {"secretKeyRef": {"name": value.name, "key": value.key}}}
    return {"name": name, "value": value.replace("$", "$$")}
