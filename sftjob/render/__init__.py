"""Placement and authored spec → Kubernetes objects. Pure: the same input gives the same bytes, here and in CI."""

from pydantic_core import to_jsonable_python

from sftjob.contract import SPEC_FILE, Component
from sftjob.place import Placement
from sftjob.render.jobs import config_map, headless_service, service_account, train_job
from sftjob.render.manifest import Identity, Json, Manifest
from sftjob.render.yaml import manifests_yaml
from sftjob.spec import JobSpec, canonical_json, canonical_spec, run_id, sha256_hex

__all__ = ["Json", "Manifest", "manifests_yaml", "render"]


def render(placement: Placement, spec: JobSpec) -> tuple[Manifest, ...]:
    """The objects of one training run, in the order in which they are applied.

    A Job cannot change its pods, so whatever changes them changes every name, too: a new image is a new Job of the same
    run and never "field is immutable".
    """
    data = {SPEC_FILE: canonical_spec(spec).decode()}
    identity = Identity(run_id=run_id(spec), digest=_digest(placement, data), component=Component.TRAIN)
    return (
        config_map(placement, identity, data),
        service_account(placement, identity),
        *([headless_service(placement, identity)] if placement.nodes > 1 else []),
        train_job(placement, identity),
    )


def _digest(placement: Placement, data: dict[str, str]) -> str:
    """Over everything that pods see. The namespace is left out: it is a part of the objects' full names already."""
    placed = to_jsonable_python(placement, exclude_none=True)
    placed.pop("namespace", None)
    return sha256_hex(canonical_json({"data": data, "placement": placed}))
