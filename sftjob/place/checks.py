"""What cannot become a pod, or would be refused by the cluster: every problem with its field and repair."""

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from sftjob.errors import Problem, SpecError
from sftjob.place.pairs import pair_problems
from sftjob.spec import JobSpec, LocalData, LocalModel, Profile, Resources, TemplateFile, run_id
from sftjob.spec.names import JOBSET_CHILD, check
from sftjob.spec.types import quantity

_LEAST: Final = {"cpu": "100m", "memory": "256Mi", "ephemeral_storage": "1Gi", "shared_memory": "64Mi"}
"""Below these nothing of ours starts; `500m` of memory, half a byte, is the usual slip."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_STAGE: Final = (
    "`sftjob stage SPEC -o pinned.yaml` uploads it and writes a spec for this command; `sftjob submit` does both"
)


def problems(spec: JobSpec, profile: Profile) -> Iterator[Problem]:
    """Yields what keeps a job from becoming pods; fields of the profile begin with `profile.`."""
    yield from _name_problems(spec, profile)
    yield from _launch_problems(spec, profile)
    yield from _resource_problems(spec.resources, "resources")
    if spec.kubernetes.evaluation != "never":
        yield from _evaluation_problems(spec, profile)
    yield from _storage_problems(spec, profile)
    yield from _input_problems(spec)
    if "wandb" in spec.monitoring.report_to and profile.wandb_secret is None:
        yield Problem(
            field="monitoring.report_to",
            reason="the profile names no key for Weights & Biases",
            hint="write `wandb_secret: {name: SECRET, key: KEY}` in the profile, or remove `wandb`",
        )
    yield from _platform_problems(spec, profile)
    yield from pair_problems(spec, profile)


def _name_problems(spec: JobSpec, profile: Profile) -> Iterator[Problem]:
    if profile.engine == "jobset":
        try:
            check(run_id(spec), pods=spec.launch.nodes, child=JOBSET_CHILD)
        except SpecError as error:
            yield from error.problems


def _launch_problems(spec: JobSpec, profile: Profile) -> Iterator[Problem]:
    launch = spec.launch
    if launch.gpu and not launch.gpus_per_node:
        yield Problem(
            field="launch.gpu",
            reason="names a GPU, but `gpus_per_node` is 0",
            hint="remove it, or ask for at least one GPU",
        )
    label = profile.gpu.product_label
    selected, product = profile.node_selector.get(label), profile.gpu.products.get(launch.gpu or "", launch.gpu)
    if product and selected not in (None, product):
        yield Problem(
            field="launch.gpu",
            reason=f"{product} is not what the profile selects, {selected}",
            hint=f"remove `{label}` from the profile's `node_selector`, or choose that GPU",
        )
    if "/mig-" in profile.gpu.resource and launch.gpus_per_node > 1:
        yield Problem(
            field="launch.gpus_per_node",
            reason=f"{launch.gpus_per_node} slices of a GPU ({profile.gpu.resource}) cannot work together",
            hint="use one, or whole GPUs",
        )


def _resource_problems(resources: Resources, field: str) -> Iterator[Problem]:
    for name, least in _LEAST.items():
        value: str = getattr(resources, name)
        if quantity(value) < quantity(least):
            yield Problem(
                field=f"{field}.{name}", reason=f"{value} is too little to start", hint=f"ask for {least} or more"
            )
    if quantity(resources.shared_memory) >= quantity(resources.memory) >= quantity(_LEAST["memory"]):
        yield Problem(
            field=f"{field}.shared_memory",
            reason=f"{resources.shared_memory} is not below `memory`, {resources.memory}, which it counts towards",
            hint=f"lower it or raise `{field}.memory`",
        )


def _evaluation_problems(spec: JobSpec, profile: Profile) -> Iterator[Problem]:
    """Those of values of its own; what it has from the training is judged there."""
    asked = spec.resources.evaluation
    written = {name: value for name in _LEAST if (value := getattr(asked, name)) is not None}
    if written:
        yield from _resource_problems(spec.resources.model_copy(update=written), "resources.evaluation")
    if (asked.gpus or 0) > 1 and "/mig-" in profile.gpu.resource:
        yield Problem(
            field="resources.evaluation.gpus",
            reason=f"{asked.gpus} slices of a GPU ({profile.gpu.resource}) cannot work together",
            hint="use one, or whole GPUs",
        )


def _storage_problems(spec: JobSpec, profile: Profile) -> Iterator[Problem]:
    uri = spec.storage.uri or profile.storage.uri
    if uri is None:
        yield Problem(
            field="storage.uri",
            reason="neither the spec nor the profile says where runs are kept",
            hint="write `storage: {uri: s3://bucket/prefix}` into the spec, or name a profile that does",
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
                reason=f"{source.path} is on this machine, which pods cannot reach",
                hint=_STAGE,
            )
    if isinstance(spec.data.template, TemplateFile):
        yield Problem(
            field="data.template.path",
            reason=f"{spec.data.template.path} is on this machine, which pods cannot reach",
            hint="`sftjob stage SPEC -o pinned.yaml` writes its text into the spec; `sftjob submit` does so, too",
        )


def _platform_problems(spec: JobSpec, profile: Profile) -> Iterator[Problem]:
    cache, account = profile.model_cache, profile.service_account
    if cache and cache.size and cache.access_mode == "ReadWriteOnce" and spec.launch.nodes > 1:
        yield Problem(
            field="profile.model_cache.access_mode",
            reason=f"the pods of {spec.launch.nodes} nodes cannot share a volume that one node mounts",
            hint="write `ReadWriteMany` with a storage class that can do it, or leave the cache out",
        )
    if account.name and account.annotations:
        yield Problem(
            field="profile.service_account.annotations",
            reason=f"would be written on accounts that a run brings, but `{account.name}` exists already",
            hint="annotate that one by hand, or remove `name`",
        )
