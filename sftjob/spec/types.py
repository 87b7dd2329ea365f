"""Building blocks of everything that a person writes: closed models and the few value types they share."""

from decimal import Decimal
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

SUFFIXES: Final = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
}

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", examples=["4", "500m", "16Gi"])]
"""A Kubernetes quantity. Powers of ten without the `i`, powers of two with it."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
CommitSha = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
S3Uri = Annotated[str, Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s?#]*)?$")]


def _no_address(path: str) -> str:
    if "://" in path:
        raise ValueError("is an address, not a path on this machine; for S3 write `uri: s3://bucket/prefix`")
    return path


LocalPath = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00\n]+$"), AfterValidator(_no_address)]
"""A path on the machine where the command runs; relative paths start at the spec file's folder."""


class SpecModel(BaseModel):
    """Base of what people write: unknown keys are refused, values are not coerced, instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


def quantity(value: str) -> Decimal:
    """The number behind a Kubernetes quantity: cores for `500m`, bytes for `16Gi`."""
    digits = value.rstrip("".join({letter for suffix in SUFFIXES for letter in suffix}))
    return Decimal(digits) * SUFFIXES[value[len(digits) :]]
