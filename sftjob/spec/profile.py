"""Profile: the platform team's half. It makes a portable spec land on one cluster."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from sftjob.spec.network import NetworkPolicy
from sftjob.spec.types import DnsLabel, Quantity, S3Uri, SpecModel

ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]

_SECRET_NAME: Final = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE
)


def _pinned(image: str) -> str:
    name = image.rpartition("/")[2]
    if "@sha256:" not in image and (":" not in name or name.endswith(":latest")):
        raise ValueError("names no fixed version; add a digest or a tag other than `latest`")
    return image


Image = Annotated[str, Field(pattern=r"^\S+$", max_length=512), AfterValidator(_pinned)]
"""A container image with a digest, or at least a tag of its own."""


class SecretKey(SpecModel):
    """One key of a Secret that exists already."""

    name: ObjectName
    key: str = Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)


class Images(SpecModel):
    """Container images, best by digest."""

    train: Image
    eval: Image | None = None
    """Without it that of the training."""
    gate: Image | None = None
    """The small one that starts the evaluation; without it that of the training."""


class Toleration(SpecModel):
    """A taint that pods may ignore, in Kubernetes' own fields."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class ServiceAccount(SpecModel):
    """The identity of pods towards the cloud; training and evaluation hold no Kubernetes token."""

    name: ObjectName | None = None
    """One that exists already, as clouds need that know accounts by name; without it each run brings its own."""
    gate_name: ObjectName | None = None
    """The same for the gate, whose account is given the right to start the evaluation; without it `name`."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Of the accounts that a run brings, for instance `eks.amazonaws.com/role-arn`."""


class ProfileStorage(SpecModel):
    """The store as pods reach it."""

    uri: S3Uri | None = None
    """Where runs live when a spec does not say."""
    endpoint_url: str | None = Field(default=None, pattern=r"^https?://[^\s@?#]+$")
    external_endpoint_url: str | None = Field(default=None, pattern=r"^https?://[^\s@?#]+$")
    """The same store as people's machines reach it, where that is another address. No pod sees it."""
    region: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,64}$")
    credentials_secret: SecretKey | None = None
    """An AWS shared credentials file in a Secret; without it pods use their service account's cloud identity."""


class Topology(SpecModel):
    """How close to each other Kueue places the pods of one run."""

    mode: Literal["required", "preferred", "unconstrained"]
    level: str | None = Field(default=None, pattern=r"^[-A-Za-z0-9./_]+$", max_length=316)
    """Node label of the level, for instance `cloud.provider.com/topology-rack`; none for `unconstrained`."""

    @model_validator(mode="after")
    def _has_its_level(self) -> Self:
        if (self.level is None) != (self.mode == "unconstrained"):
            raise ValueError("`required` and `preferred` need a `level`, `unconstrained` has none")
        return self


class Queue(SpecModel):
    """Kueue admits the run's Jobs."""

    name: DnsLabel
    """A LocalQueue of the namespace."""
    priority_class: ObjectName | None = None
    """A WorkloadPriorityClass."""
    topology: Topology | None = None


class Gpu(SpecModel):
    """What this cluster calls its GPUs."""

    resource: str = Field(
        default="nvidia.com/gpu", pattern=r"^nvidia\.com/(gpu|gpu\.shared|mig-[0-9]+g\.[0-9]+gb(\.me)?)$"
    )
    """The resource that pods ask for; a MIG slice is `nvidia.com/mig-1g.10gb`."""
    product_label: str = Field(
        default="nvidia.com/gpu.product", pattern=r"^([a-z0-9.-]+/)?[A-Za-z0-9][-A-Za-z0-9_.]*$", max_length=316
    )
    """The node label that names the product; GKE's own is `cloud.google.com/gke-accelerator`."""
    products: dict[str, str] = Field(default_factory=dict)
    """The label's value by `launch.gpu`, where it differs: `{NVIDIA-H100-80GB-HBM3: nvidia-h100-80gb}`."""


class ModelCache(SpecModel):
    """A volume that keeps base models, so that a pod that starts again need not fetch them again."""

    claim: ObjectName | None = None
    """A PersistentVolumeClaim that exists already and that runs share."""
    size: Quantity | None = None
    """Size of a claim that each run brings of its own."""
    storage_class_name: ObjectName | None = None
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteOnce"

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> Self:
        if (self.claim is None) == (self.size is None):
            raise ValueError("name a `claim` that exists, or the `size` of one that each run brings")
        if self.claim and self.storage_class_name:
            raise ValueError("`storage_class_name` is for a claim that is made; this one exists")
        return self


class Profile(SpecModel):
    """Everything about a cluster that a spec should not have to know."""

    images: Images | None = None
    image_pull_secrets: tuple[ObjectName, ...] = ()
    namespace: DnsLabel | None = None
    engine: Literal["batch", "jobset"] = "batch"
    """`batch` needs nothing but Kubernetes; `jobset` restarts the pods of several nodes together."""
    queue: Queue | None = None
    storage: ProfileStorage = ProfileStorage()
    hub_token_secret: SecretKey | None = None
    """A Hugging Face token, mounted as a file."""
    wandb_secret: SecretKey | None = None
    """A Weights & Biases API key. It becomes an environment variable, since W&B reads no file with the key alone."""
    service_account: ServiceAccount = ServiceAccount()
    pod_labels: dict[str, str] = Field(default_factory=dict)
    """More labels on pods, for instance `azure.workload.identity/use`."""
    pod_annotations: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = (Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule"),)
    """For pods with GPUs."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    gpu: Gpu = Gpu()
    extra_resources: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """More devices of each training pod, for instance `{vpc.amazonaws.com/efa: 4}`."""
    runtime_class_name: ObjectName | None = None
    """For instance `nvidia` on K3s and RKE2; for pods with GPUs."""
    priority_class_name: ObjectName | None = None
    """Where a spec names none."""
    topology_key: str = Field(default="topology.kubernetes.io/zone", pattern=r"^[-A-Za-z0-9./_]+$", max_length=316)
    """Node label whose value the pods of several nodes should share."""
    network_policy: NetworkPolicy | None = None
    model_cache: ModelCache | None = None
    env: dict[str, str] = Field(default_factory=dict)
    """More variables of the training container, for instance `{NCCL_SOCKET_IFNAME: eth0}`; never a secret."""
    cpu_limit: bool = False
    """Limit the processor to what is asked for, as some quotas demand; throttling stalls the loading of data."""
    host_users: bool | None = None
    """`false` gives pods a user namespace of their own, where Kubernetes and the GPU driver can do that."""

    @field_validator("env")
    @classmethod
    def _holds_no_secret(cls, env: dict[str, str]) -> dict[str, str]:
        for name in env:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"`{name}` is no name of a variable; use letters, digits and `_`")
            if _SECRET_NAME.search(name):
                raise ValueError(f"`{name}` looks like a secret, and a profile is no place for one; use a Secret")
        return env
