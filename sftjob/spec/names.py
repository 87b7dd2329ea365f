"""Names of Kubernetes objects: each is made here, and `check` makes the longest before anything is rendered."""

import re
from typing import Final

from sftjob.contract import Component
from sftjob.errors import SpecError

MAX_NAME: Final = 63
"""Characters of a DNS label, which a pod's name and hostname must be (RFC 1123)."""
_POD_SUFFIX: Final = "-xxxxx"
"""What Kubernetes adds to the name of a Job's pod, after `-<index>` where the Job is indexed."""
JOBSET_WORKER: Final = "w"
"""The replicated Job of a JobSet: short, since names are; no `n`, which YAML 1.1 takes for false."""
JOBSET_CHILD: Final = f"-{JOBSET_WORKER}-0"
"""What a JobSet adds to its name for the Job that it makes."""
_DIGEST: Final = re.compile(r"[0-9a-f]{4,64}")
_LABEL: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def object_name(run_id: str, digest: str, component: Component) -> str:
    """`<run_id>-<4 hex>-<train|eval|gate>`: the name of a Job or of the gate.

    Args:
        digest: hex SHA-256 over what the cluster sees (placement and ConfigMap data); its first four digits are taken,
            so that a new image or another evaluation is a new object of the same run.

    Raises:
        ValueError: `digest` is not hex.
    """
    return f"{_stem(run_id, digest)}-{component.value}"


def config_map_name(run_id: str, digest: str) -> str:
    """Name of the immutable ConfigMap that carries the authored spec."""
    return f"{_stem(run_id, digest)}-spec"


def cache_claim_name(run_id: str, digest: str) -> str:
    """Name of the volume claim that a run brings for base models."""
    return f"{_stem(run_id, digest)}-cache"


def service_account_name(run_id: str, digest: str) -> str:
    """Name of the service account of the training and evaluation pods."""
    return f"{_stem(run_id, digest)}-pods"


def check(run_id: str, *, pods: int, child: str = "") -> None:
    """Makes the longest name that a run's objects and pods will have.

    Args:
        pods: pods of the training Job, which are numbered from 0.
        child: what stands between the name of the training and the numbers of its pods.

    Raises:
        SpecError: the name of the last pod is longer than a DNS label, or is none; `field` is `name`.
    """
    longest = max((object_name(run_id, "0000", component) for component in Component), key=len)
    pod = f"{longest}{child}-{pods - 1}{_POD_SUFFIX}"
    if len(pod) > MAX_NAME:
        raise SpecError(
            f"pod names would have {len(pod)} characters, Kubernetes allows {MAX_NAME}",
            field="name",
            hint=f"shorten it by {len(pod) - MAX_NAME}, or use fewer than {pods} nodes",
        )
    if not _LABEL.fullmatch(pod):
        raise SpecError("does not make a DNS label", field="name", hint="use lower-case letters, digits and dashes")


def _stem(run_id: str, digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"not a hex digest: {digest[:60]!r}")
    return f"{run_id}-{digest[:4]}"
