"""The shape of what is rendered: plain data, and what every object says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sftjob.contract import Component, Label
from sftjob.place import Placement
from sftjob.spec.names import config_map_name, object_name, service_account_name

Json: TypeAlias = "bool | int | str | list[Json] | Manifest | None"
Manifest: TypeAlias = dict[str, Json]
"""A Kubernetes object or a part of one, as JSON: keys in the order in which people write them."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What tells the objects of one rendering from those of every other."""

    run_id: str
    digest: str
    """Hex SHA-256 over all that pods see; names carry its beginning."""
    component: Component

    @property
    def job(self) -> str:
        return object_name(self.run_id, self.digest, self.component)

    @property
    def service(self) -> str:
        """Of the headless Service; that of the Job, whose pods it names."""
        return self.job

    @property
    def config_map(self) -> str:
        return config_map_name(self.run_id, self.digest)

    @property
    def service_account(self) -> str:
        return service_account_name(self.run_id, self.digest)

    def labels(self, placement: Placement) -> dict[str, str]:
        """Ours and the user's; `place` has refused keys that would clash."""
        return {
            Label.NAME.value: "sftjob",
            Label.COMPONENT.value: self.component.value,
            Label.MANAGED_BY.value: "sftjob",
            Label.RUN_ID.value: self.run_id,
            **placement.labels,
        }


def metadata(
    name: str, placement: Placement, identity: Identity, annotations: Mapping[str, str] | None = None
) -> Manifest:
    """What an object is called and how it is found."""
    return present(
        {
            "name": name,
            "namespace": placement.namespace,
            "labels": strings(identity.labels(placement)),
            "annotations": strings(annotations or {}) or None,
        }
    )


def present(fields: Manifest) -> Manifest:
    """The same without fields that are None: in Kubernetes a field that is not set is left out."""
    return {key: value for key, value in fields.items() if value is not None}


def strings(pairs: Mapping[str, str]) -> Manifest:
    """A string map as a part of a manifest."""
    return dict(pairs)
