"""JobSpec + Profile → Placement: what Kubernetes sees of a job. It never depends on method, training or planner.

Derived numbers live here and nowhere else; `sftjob.render` only writes them down.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from sftjob import __version__
from sftjob.errors import SpecError
from sftjob.place.checks import problems
from sftjob.spec import JobSpec, Profile
from sftjob.spec.network import NetworkPolicy
from sftjob.spec.profile import ModelCache, Queue, SecretKey, Toleration
from sftjob.spec.types import quantity

__all__ = ["ContainerSize", "Placement", "ServiceAccounts", "place"]

_MIB: Final = 2**20
V = TypeVar("V")


@dataclass(frozen=True, kw_only=True)
class ContainerSize:
    """What a container is and what it asks of its node; sizes are Kubernetes quantities."""

    image: str
    gpus: int
    node_selector: Mapping[str, str]
    cpu: str
    memory: str
    ephemeral_storage: str
    shared_memory: str
    """Size of /dev/shm; counts towards `memory`."""
    workspace_size: str
    tmp_size: str
    """With `workspace_size` 95 % of `ephemeral_storage`: the rest is for logs, which count towards it, too."""
    omp_num_threads: int


@dataclass(frozen=True, kw_only=True)
class ServiceAccounts:
    """Under whose name pods run; None is an account that the run brings."""

    pods: str | None
    gate: str | None
    annotations: Mapping[str, str]
    """Of accounts that the run brings."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Everything about a job's pods and objects that is not the job itself.

    Sizes are Kubernetes quantities, times are seconds.
    """

    namespace: str | None
    """None: the current one of whoever applies the manifests."""
    engine: Literal["batch", "jobset"]
    nodes: int
    train: ContainerSize
    evaluation: ContainerSize | None
    """None: the run is never evaluated in the cluster."""
    gate_image: str | None
    """None: nothing in the cluster starts the evaluation."""
    gpu_resource: str
    extra_resources: Mapping[str, int]
    cpu_limit: bool
    termination_grace_period_seconds: int
    retries: int
    """How often a Job of one pod, or a JobSet, tries again after failures that count."""
    backoff_limit: int
    """The same for the train Job, which counts pods: those of a gang fail together."""
    ttl_seconds_after_finished: int
    active_deadline_seconds: int | None
    priority_class_name: str | None
    runtime_class_name: str | None
    host_users: bool | None
    queue: Queue | None
    topology_key: str
    labels: Mapping[str, str]
    """Of all objects and pods."""
    annotations: Mapping[str, str]
    """Of the train Job and its pods."""
    pod_labels: Mapping[str, str]
    pod_annotations: Mapping[str, str]
    tolerations: tuple[Toleration, ...]
    """Of pods with GPUs, and of pods that are bound to chosen nodes."""
    service_accounts: ServiceAccounts
    image_pull_secrets: tuple[str, ...]
    network_policy: NetworkPolicy | None
    model_cache: ModelCache | None
    env: Mapping[str, str]
    storage_uri: str | None
    """Set only where the spec names no storage of its own."""
    endpoint_url: str | None
    region: str | None
    credentials_secret: SecretKey | None
    hub_token_secret: SecretKey | None
    wandb_secret: SecretKey | None
    """Set only where the spec reports to W&B: other jobs' pods do not get the key."""


def place(spec: JobSpec, profile: Profile) -> Placement:
    """Joins the person's half and the platform's; where both speak, the spec decides.

    Raises:
        SpecError: all that cannot become a pod, at once; fields of the profile begin with `profile.`.
    """
    if found := tuple(problems(spec, profile)):
        raise SpecError(found)
    kubernetes, storage, account = spec.kubernetes, profile.storage, profile.service_account
    evaluated = kubernetes.evaluation != "never"
    gated = kubernetes.evaluation == "gate"
    return Placement(
        namespace=profile.namespace,
        engine=profile.engine,
        nodes=spec.launch.nodes,
        train=_train_size(spec, profile),
        evaluation=_evaluation_size(spec, profile) if evaluated else None,
        gate_image=_gate_image(profile) if gated else None,
        gpu_resource=profile.gpu.resource,
        extra_resources=_sorted(profile.extra_resources),
        cpu_limit=profile.cpu_limit,
        termination_grace_period_seconds=kubernetes.termination_grace_period_seconds,
        retries=kubernetes.retries,
        backoff_limit=kubernetes.retries * spec.launch.nodes,
        ttl_seconds_after_finished=kubernetes.ttl_seconds_after_finished,
        active_deadline_seconds=kubernetes.active_deadline_seconds,
        priority_class_name=kubernetes.priority_class_name or profile.priority_class_name,
        runtime_class_name=profile.runtime_class_name,
        host_users=profile.host_users,
        queue=profile.queue,
        topology_key=profile.topology_key,
        labels=_sorted(kubernetes.labels),
        annotations=_sorted(kubernetes.annotations),
        pod_labels=_sorted(profile.pod_labels),
        pod_annotations=_sorted(profile.pod_annotations),
        tolerations=profile.tolerations,
        service_accounts=ServiceAccounts(
            pods=account.name,
            gate=account.gate_name or account.name,
            annotations=_sorted(account.annotations),
        ),
        image_pull_secrets=profile.image_pull_secrets,
        network_policy=profile.network_policy,
        model_cache=profile.model_cache,
        env=_sorted(profile.env),
        storage_uri=None if spec.storage.uri else storage.uri,
        endpoint_url=spec.storage.endpoint_url or storage.endpoint_url,
        region=spec.storage.region or storage.region,
        credentials_secret=storage.credentials_secret,
        hub_token_secret=profile.hub_token_secret,
        wandb_secret=profile.wandb_secret if "wandb" in spec.monitoring.report_to else None,
    )


def _train_size(spec: JobSpec, profile: Profile) -> ContainerSize:
    launch, asked = spec.launch, spec.resources
    return _size(
        image=profile.images.train if profile.images else _default_image(launch.gpus_per_node),
        gpus=launch.gpus_per_node,
        node_selector=_node_selector(spec, profile, launch.gpus_per_node),
        cpu=asked.cpu,
        memory=asked.memory,
        ephemeral_storage=asked.ephemeral_storage,
        shared_memory=asked.shared_memory,
        processes=launch.local_processes,
    )


def _evaluation_size(spec: JobSpec, profile: Profile) -> ContainerSize:
    launch, train, asked = spec.launch, spec.resources, spec.resources.evaluation
    gpus = min(1, launch.gpus_per_node) if asked.gpus is None else asked.gpus
    images = profile.images
    return _size(
        image=(images.eval or images.train) if images else _default_image(launch.gpus_per_node),
        gpus=gpus,
        node_selector=_node_selector(spec, profile, gpus),
        cpu=asked.cpu or train.cpu,
        memory=asked.memory or train.memory,
        ephemeral_storage=asked.ephemeral_storage or train.ephemeral_storage,
        shared_memory=asked.shared_memory or train.shared_memory,
        processes=1,
    )


def _size(
    *,
    image: str,
    gpus: int,
    node_selector: Mapping[str, str],
    cpu: str,
    memory: str,
    ephemeral_storage: str,
    shared_memory: str,
    processes: int,
) -> ContainerSize:
    scratch = int(quantity(ephemeral_storage)) // _MIB
    return ContainerSize(
        image=image,
        gpus=gpus,
        node_selector=node_selector,
        cpu=cpu,
        memory=memory,
        ephemeral_storage=ephemeral_storage,
        shared_memory=shared_memory,
        workspace_size=f"{scratch * 9 // 10}Mi",
        tmp_size=f"{scratch // 20}Mi",
        omp_num_threads=max(1, int(quantity(cpu) / processes)),
    )


def _node_selector(spec: JobSpec, profile: Profile, gpus: int) -> Mapping[str, str]:
    product = spec.launch.gpu
    if not gpus or not product:
        return _sorted(profile.node_selector)
    return _sorted(profile.node_selector | {profile.gpu.product_label: profile.gpu.products.get(product, product)})


def _gate_image(profile: Profile) -> str:
    if profile.images is None:
        return f"sftjob:{__version__}-gate"
    return profile.images.gate or profile.images.train


def _default_image(gpus_per_node: int) -> str:
    """The name that `images/` builds under, for whoever loads it into their cluster themselves."""
    return f"sftjob:{__version__}-{'cuda' if gpus_per_node else 'cpu'}"


def _sorted(pairs: Mapping[str, V]) -> dict[str, V]:
    """The order in which they are written says nothing and must not change a byte."""
    return dict(sorted(pairs.items()))
