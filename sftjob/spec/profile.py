"""Profile: the platform team's half. It makes a portable spec land on one cluster."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from sftjob.spec.types import DnsLabel, S3Uri, SpecModel

ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]


class SecretKey(SpecModel):
    """One key of a Secret that exists already."""

    name: ObjectName
    key: str = Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)


class Images(SpecModel):
    """Container images, best by digest."""

    train: str = Field(pattern=r"^\S+$", max_length=512)

    @field_validator("train")
    @classmethod
    def _pinned(cls, image: str) -> str:
        name = image.rpartition("/")[2]
        if "@sha256:" not in image and (":" not in name or name.endswith(":latest")):
            raise ValueError("names no fixed version; add a digest or a tag other than `latest`")
        return image


class Toleration(SpecModel):
    """A taint that pods may ignore, in Kubernetes' own fields."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class ServiceAccount(SpecModel):
    """The identity of pods towards the cloud; the pods hold no Kubernetes token."""

    annotations: dict[str, str] = Field(default_factory=dict)
    """For instance `eks.amazonaws.com/role-arn`."""


class ProfileStorage(SpecModel):
    """The store as pods reach it."""

    uri: S3Uri | None = None
    """Where runs live when a spec does not say."""
    endpoint_url: str | None = Field(default=None, pattern=r"^https?://[^\s@?#]+$")
    region: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,64}$")
    credentials_secret: SecretKey | None = None
    """An AWS shared credentials file in a Secret; without it pods use their service account's cloud identity."""


class Profile(SpecModel):
    """Everything about a cluster that a spec should not have to know."""

    images: Images | None = None
    namespace: DnsLabel | None = None
    storage: ProfileStorage = ProfileStorage()
    hub_token_secret: SecretKey | None = None
    """A Hugging Face token, mounted as a file."""
    wandb_secret: SecretKey | None = None
    """A Weights & Biases API key. It becomes an environment variable, since W&B reads no file with the key alone."""
    service_account: ServiceAccount = ServiceAccount()
    tolerations: tuple[Toleration, ...] = (Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule"),)
    node_selector: dict[str, str] = Field(default_factory=dict)
    image_pull_secrets: tuple[ObjectName, ...] = ()
