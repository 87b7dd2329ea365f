"""Which run a spec is: canonical bytes, run id, and the names and hashes that follow from them."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import rfc8785

from sftjob.spec.job import JobSpec

IDENTITY_BLOCKS: Final[tuple[str, ...]] = ("model", "data", "method", "training", "launch", "salt")
"""The blocks that change weights. Everything else may change without training again."""


def authored(spec: JobSpec) -> dict[str, Any]:
    """What the person wrote, and nothing that was left out."""
    return spec.model_dump(mode="json", exclude_unset=True)


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """RFC 8785 bytes, the same that Helm's `toRawJson` gives for what the loader lets through."""
    return rfc8785.dumps(dict(value))


def canonical_spec(spec: JobSpec) -> bytes:
    """The authored spec as the ConfigMap carries it."""
    return canonical_json(authored(spec))


def run_id(spec: JobSpec) -> str:
    """`<name>-<8 hex>` over the blocks that change weights: the same spec is the same run."""
    written = authored(spec)
    blocks = {key: written[key] for key in IDENTITY_BLOCKS if key in written}
    return f"{spec.name}-{sha256_hex(canonical_json(blocks))[:8]}"


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
