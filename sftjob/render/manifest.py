"""The shape of what is rendered: plain data, and what every object says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from sftjob.contract import QUEUE_LABEL, Component, Label
from sftjob.place import Placement
from sftjob.spec.names import (
    JOBSET_CHILD,
    cache_claim_name,
    config_map_name,
    object_name,
    service_account_name,
)

Json: TypeAlias = "bool | int | str | list[Json] | Manifest | None"
Manifest: TypeAlias = dict[str, Json]
"""A Kubernetes object or a part of one, as JSON: keys in the order in which people write them."""

PRIORITY_LABEL: Final = "kueue.x-k8s.io/priority-class"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What tells the objects of one rendering from those of every other."""

    run_id: str
    revision: str
    """Four hex digits over all objects of the rendering."""
    component: Component

    def of(self, component: Component) -> "Identity":
        """The same rendering's other part."""
        return replace(self, component=component)

    @property
    def stem(self) -> str:
        """With which all names begin. As a label, too: four hex digits alone are a number to many a YAML tool."""
        return f"{self.run_id}-{self.revision}"

    @property
    def job(self) -> str:
        """Of the component's Job, or of the training's JobSet."""
        return object_name(self.run_id, self.revision, self.component)

    @property
    def service(self) -> str:
        """Of the headless Service; that of the Job, whose pods it names."""
        return self.job

    @property
    def config_map(self) -> str:
        return config_map_name(self.run_id, self.revision)

    @property
    def service_account(self) -> str:
        """That the run brings: one for the gate, one for all other pods."""
        return self.job if self.component is Component.GATE else service_account_name(self.run_id, self.revision)

    @property
    def cache_claim(self) -> str:
        return cache_claim_name(self.run_id, self.revision)

    def labels(self, placement: Placement) -> dict[str, str]:
        """Ours and the user's; `place` has refused keys that would clash."""
        return {
            Label.NAME.value: "sftjob",
            Label.COMPONENT.value: self.component.value,
            Label.MANAGED_BY.value: "sftjob",
            Label.RUN_ID.value: self.run_id,
            Label.REVISION.value: self.stem,
            **placement.labels,
        }

    def first_pod(self, placement: Placement) -> str:
        """The name of pod 0 of the training, which is the same for every attempt's pods."""
        child = JOBSET_CHILD if placement.engine == "jobset" else ""
        return f"{self.job}{child}-0.{self.service}"


def metadata(
    name: str,
    placement: Placement,
    identity: Identity,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """What an object is called and how it is found."""
    return present(
        {
            "name": name,
            "namespace": placement.namespace,
            "labels": strings({**identity.labels(placement), **(labels or {})}),
            "annotations": strings(annotations or {}) or None,
        }
    )


def queue_labels(placement: Placement) -> dict[str, str]:
    """By which Kueue finds a Job that it is to admit."""
    if placement.queue is None:
        return {}
    priority = placement.queue.priority_class
    return {QUEUE_LABEL: placement.queue.name, **({PRIORITY_LABEL: priority} if priority else {})}


def present(fields: Manifest) -> Manifest:
    """The same without fields that are None: in Kubernetes a field that is not set is left out."""
    return {key: value for key, value in fields.items() if value is not None}


def strings(pairs: Mapping[str, str]) -> Manifest:
    """A string map as a part of a manifest."""
    return dict(pairs)
