"""JobSpec + Profile → Placement: what Kubernetes sees of a job. It never depends on method, training or planner.

Derived numbers live here and nowhere else; `sftjob.render` only writes them down.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from sftjob import __version__
from sftjob.errors import Problem, SpecError
from sftjob.spec import JobSpec, LocalData, LocalModel, Profile, Resources, TemplateFile
from sftjob.spec.profile import SecretKey, Toleration
from sftjob.spec.types import quantity

GPU_PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
"""Set on nodes by NVIDIA's GPU feature discovery."""

_RESERVED_PREFIXES: Final = frozenset({"sftjob.dev", "app.kubernetes.io", "batch.kubernetes.io"})
_RESERVED_KEYS: Final = frozenset({"controller-uid", "job-name"})
"""Old names of the Job controller's own labels, which it still sets."""
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_DNS_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_MIB: Final = 2**20
_LEAST: Final = {"cpu": "100m", "memory": "256Mi", "ephemeral_storage": "1Gi", "shared_memory": "64Mi"}
"""Below these nothing of ours starts; `500m` of memory, half a byte, is the usual slip."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Everything about a job's pods and objects that is not the job itself.

    Sizes are Kubernetes quantities, times are seconds.
    """

    namespace: str | None
    """None: the current one of whoever applies the manifests."""
    image: str
    nodes: int
    processes_per_node: int
    gpus_per_node: int
    cpu: str
    memory: str
    ephemeral_storage: str
    shared_memory: str
    """Size of /dev/shm; counts towards `memory`."""
    workspace_size: str
    tmp_size: str
    """With `workspace_size` 95 % of `ephemeral_storage`: the rest is for logs, which count towards it, too."""
    omp_num_threads: int
    termination_grace_period_seconds: int
    retries: int
    ttl_seconds_after_finished: int
    active_deadline_seconds: int | None
    priority_class_name: str | None
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    tolerations: tuple[Toleration, ...]
    node_selector: Mapping[str, str]
    service_account_annotations: Mapping[str, str]
    image_pull_secrets: tuple[str, ...]
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
    if problems := tuple(_problems(spec, profile)):
        raise SpecError(problems)
    launch, resources, kubernetes = spec.launch, spec.resources, spec.kubernetes
    scratch = int(quantity(resources.ephemeral_storage)) // _MIB
    return Placement(
        namespace=profile.namespace,
        image=profile.images.train if profile.images else _default_image(launch.gpus_per_node),
        nodes=launch.nodes,
        processes_per_node=launch.local_processes,
        gpus_per_node=launch.gpus_per_node,
        cpu=resources.cpu,
        memory=resources.memory,
        ephemeral_storage=resources.ephemeral_storage,
        shared_memory=resources.shared_memory,
        workspace_size=f"{scratch * 9 // 10}Mi",
        tmp_size=f"{scratch // 20}Mi",
        omp_num_threads=max(1, int(quantity(resources.cpu) / launch.local_processes)),
        termination_grace_period_seconds=kubernetes.termination_grace_period_seconds,
        # A gang's pods fail together, and each failure counts.
        retries=kubernetes.retries * launch.nodes,
        ttl_seconds_after_finished=kubernetes.ttl_seconds_after_finished,
        active_deadline_seconds=kubernetes.active_deadline_seconds,
        priority_class_name=kubernetes.priority_class_name,
        labels=_sorted(kubernetes.labels),
        annotations=_sorted(kubernetes.annotations),
        tolerations=profile.tolerations if launch.gpus_per_node else (),
        node_selector=_sorted(profile.node_selector | ({GPU_PRODUCT_LABEL: launch.gpu} if launch.gpu else {})),
        service_account_annotations=_sorted(profile.service_account.annotations),
        image_pull_secrets=profile.image_pull_secrets,
        storage_uri=None if spec.storage.uri else profile.storage.uri,
        endpoint_url=spec.storage.endpoint_url or profile.storage.endpoint_url,
        region=spec.storage.region or profile.storage.region,
        credentials_secret=profile.storage.credentials_secret,
        hub_token_secret=profile.hub_token_secret,
        wandb_secret=profile.wandb_secret if "wandb" in spec.monitoring.report_to else None,
    )


def _sorted(pairs: Mapping[str, str]) -> dict[str, str]:
    """The order in which they are written says nothing and must not change a byte."""
    return dict(sorted(pairs.items()))


def _default_image(gpus_per_node: int) -> str:
    """The name that `images/` builds under, for whoever loads it into their cluster themselves."""
    return f"sftjob:{__version__}-{'cuda' if gpus_per_node else 'cpu'}"


def _problems(spec: JobSpec, profile: Profile) -> Iterator[Problem]:
    yield from _launch_problems(spec, profile)
    yield from _resource_problems(spec.resources)
    yield from _storage_problems(spec, profile)
    yield from _input_problems(spec)
    if "wandb" in spec.monitoring.report_to and profile.wandb_secret is None:
        yield Problem(
            field="monitoring.report_to",
            reason="the profile names no key for Weights & Biases",
            hint="write `wandb_secret: {name: SECRET, key: KEY}` in the profile, or remove `wandb`",
        )
    yield from _reserved_problems(spec.kubernetes.labels, "kubernetes.labels")
    yield from _reserved_problems(spec.kubernetes.annotations, "kubernetes.annotations")
    yield from _label_problems(spec.kubernetes.labels, "kubernetes.labels")
    yield from _label_problems(profile.node_selector, "profile.node_selector")
    yield from _key_problems(spec.kubernetes.annotations, "kubernetes.annotations")
    yield from _key_problems(profile.service_account.annotations, "profile.service_account.annotations")
    yield from _toleration_problems(profile.tolerations)


def _launch_problems(spec: JobSpec, profile: Profile) -> Iterator[Problem]:
    launch = spec.launch
    if launch.gpu and not launch.gpus_per_node:
        yield Problem(
            field="launch.gpu",
            reason="names a GPU, but `gpus_per_node` is 0",
            hint="remove it, or ask for at least one GPU",
        )
    selected = profile.node_selector.get(GPU_PRODUCT_LABEL)
    if launch.gpu and selected not in (None, launch.gpu):
        yield Problem(
            field="launch.gpu",
            reason=f"{launch.gpu} is not what the profile selects, {selected}",
            hint=f"remove `{GPU_PRODUCT_LABEL}` from the profile's `node_selector`, or choose that GPU",
        )


def _resource_problems(resources: Resources) -> Iterator[Problem]:
    for name, least in _LEAST.items():
        value: str = getattr(resources, name)
        if quantity(value) < quantity(least):
            yield Problem(
                field=f"resources.{name}", reason=f"{value} is too little to start", hint=f"ask for {least} or more"
            )
    if quantity(resources.shared_memory) >= quantity(resources.memory) >= quantity(_LEAST["memory"]):
        yield Problem(
            field="resources.shared_memory",
            reason=f"{resources.shared_memory} is not below `memory`, {resources.memory}, which it counts towards",
            hint="lower it or raise `resources.memory`",
        )


def _storage_problems(spec: JobSpec, profile: Profile) -> Iterator[Problem]:
    uri = spec.storage.uri or profile.storage.uri
    if uri is None:
        yield Problem(
            field="storage.uri",
            reason="neither the spec nor the profile says where runs are kept",
            hint="write `storage: {uri: s3://bucket/prefix}`",
        )
    elif not uri.startswith("s3://"):
        yield Problem(
            field="storage.uri",
            reason=f"{uri} is a folder of this machine, which pods cannot reach",
            hint="pods need s3://bucket/prefix",
        )
    for endpoint, field in (
        (spec.storage.endpoint_url, "storage.endpoint_url"),
        (profile.storage.endpoint_url, "profile.storage.endpoint_url"),
    ):
        if endpoint and urlsplit(endpoint).hostname in _LOOPBACK:
            yield Problem(
                field=field,
                reason=f"{endpoint} is, seen from a pod, the pod itself",
                hint="write the address under which pods reach the store, or leave it to the profile",
            )


def _input_problems(spec: JobSpec) -> Iterator[Problem]:
    sources = (
        ("model.path", spec.model),
        *((f"data.train.{index}.path", source) for index, source in enumerate(spec.data.train)),
        *((f"data.eval.{index}.path", source) for index, source in enumerate(spec.data.eval)),
    )
    for field, source in sources:
        if isinstance(source, LocalModel | LocalData):
            yield Problem(
                field=field,
                reason="a manifest cannot reach this machine",
                hint=f"upload {source.path} and write `uri: s3://…` instead",
            )
    if isinstance(spec.data.template, TemplateFile):
        yield Problem(
            field="data.template.path",
            reason="a manifest cannot reach this machine",
            hint="write the template's text below `jinja: |` instead",
        )


def _reserved_problems(pairs: Mapping[str, str], field: str) -> Iterator[Problem]:
    for key in pairs:
        prefix, _, _ = key.rpartition("/")
        if prefix in _RESERVED_PREFIXES or key in _RESERVED_KEYS:
            yield Problem(field=f"{field}.{key}", reason="is set by sftjob or Kubernetes itself", hint="remove it")


def _label_problems(pairs: Mapping[str, str], field: str) -> Iterator[Problem]:
    yield from _key_problems(pairs, field)
    for key, value in pairs.items():
        if value and not _NAME.fullmatch(value):
            yield Problem(
                field=f"{field}.{key}",
                reason=f"{value!r} is no label value",
                hint="use at most 63 letters, digits and `.-_`, with a letter or digit at both ends",
            )


def _key_problems(pairs: Mapping[str, str], field: str) -> Iterator[Problem]:
    for key in pairs:
        prefix, slash, name = key.rpartition("/")
        valid_prefix = not slash or (len(prefix) <= 253 and _DNS_SUBDOMAIN.fullmatch(prefix))
        if not (valid_prefix and _NAME.fullmatch(name)):
            yield Problem(
                field=f"{field}.{key}",
                reason="is no Kubernetes key",
                hint="write `name` or `domain/name`, the name with at most 63 letters, digits and `.-_`",
            )


def _toleration_problems(tolerations: tuple[Toleration, ...]) -> Iterator[Problem]:
    for index, toleration in enumerate(tolerations):
        field = f"profile.tolerations.{index}"
        if toleration.operator == "Exists" and toleration.value:
            yield Problem(field=field, reason="`operator: Exists` has no `value`", hint="remove one of them")
        if toleration.operator == "Equal" and not toleration.key:
            yield Problem(
                field=field, reason="names no `key`", hint="name one, or write `operator: Exists` for all taints"
            )
