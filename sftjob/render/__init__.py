"""Placement and authored spec → Kubernetes objects. Pure: the same input gives the same bytes, here and in CI."""

import json
from dataclasses import replace
from typing import Final

from sftjob.contract import SPEC_FILE, Component
from sftjob.place import Placement
from sftjob.render.evaluation import evaluation_job
from sftjob.render.formats import as_list, manifest_files, manifests_json
from sftjob.render.gate import gate_job, gate_role, gate_role_binding, gate_service_account
from sftjob.render.jobset import train_job_set
from sftjob.render.manifest import Identity, Json, Manifest
from sftjob.render.objects import cache_claim, config_map, headless_service, network_policy, service_account
from sftjob.render.train import train_job
from sftjob.render.yaml import manifests_yaml
from sftjob.spec import JobSpec, canonical_spec, run_id, sha256_hex

__all__ = [
    "Json",
    "Manifest",
    "manifest_files",
    "manifests_json",
    "manifests_yaml",
    "render",
]

_NO_REVISION: Final = "0000"


def render(placement: Placement, spec: JobSpec) -> tuple[Manifest, ...]:
    """The objects of one run, in the order in which they are applied.

    A Job cannot change its pods, so whatever changes them changes every name, too: a new image is a new Job of the same
    run and never "field is immutable". The revision in the names is a hash over the objects themselves, without
    namespace and without a revision; so a new version of this renderer makes new names where it makes other objects.
    """
    data = {SPEC_FILE: canonical_spec(spec).decode()}
    identity = Identity(run_id=run_id(spec), revision=_NO_REVISION, component=Component.TRAIN)
    unnamed = _objects(replace(placement, namespace=None), identity, data)
    revision = sha256_hex(_canonical(as_list(unnamed)))[: len(_NO_REVISION)]
    return _objects(placement, replace(identity, revision=revision), data)


def _canonical(manifest: Manifest) -> bytes:
    """RFC 8785 for what manifests hold, text and integers under ASCII keys; ten times as fast as for all of JSON."""
    return json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _objects(placement: Placement, identity: Identity, data: dict[str, str]) -> tuple[Manifest, ...]:
    evaluation, gate = identity.of(Component.EVAL), identity.of(Component.GATE)
    objects = [config_map(placement, identity, data)]
    if placement.service_accounts.pods is None:
        objects.append(service_account(placement, identity))
    if placement.network_policy:
        objects.append(network_policy(placement, placement.network_policy, identity))
    if placement.model_cache and placement.model_cache.size:
        objects.append(cache_claim(placement, placement.model_cache, identity))
    if placement.gate_image:
        if placement.service_accounts.gate is None:
            objects.append(gate_service_account(placement, gate))
        objects += [gate_role(placement, gate), gate_role_binding(placement, gate)]
    if placement.evaluation:
        objects.append(evaluation_job(placement, placement.evaluation, evaluation))
    if placement.engine == "jobset":
        objects.append(train_job_set(placement, identity))
    else:
        objects += [headless_service(placement, identity)] if placement.nodes > 1 else []
        objects.append(train_job(placement, identity))
    if placement.gate_image:
        objects.append(gate_job(placement, placement.gate_image, gate))
    return tuple(objects)
