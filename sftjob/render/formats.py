"""The same objects for different tools: one YAML stream, a JSON List, a folder of files, a kustomization."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sftjob.render.manifest import Json, Manifest
from sftjob.render.yaml import manifests_yaml


def manifests_json(manifests: Iterable[Manifest]) -> str:
    """A `v1` List of all objects."""
    return json.dumps(as_list(manifests), indent=2, ensure_ascii=False) + "\n"


def as_list(manifests: Iterable[Manifest]) -> Manifest:
    """The objects as the one object that Kubernetes has for many."""
    items: list[Json] = [*manifests]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def manifest_files(manifests: Iterable[Manifest], *, kustomize: bool = False) -> Mapping[str, str]:
    """File names, in the order in which they are applied, and their content; that of a kustomization last."""
    numbered = enumerate(manifests, start=1)
    files = {f"{number:02d}-{_file_name(manifest)}.yaml": manifests_yaml([manifest]) for number, manifest in numbered}
    if kustomize:
        resources: list[Json] = [*files]
        kustomization: Manifest = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": resources,
        }
        files["kustomization.yaml"] = manifests_yaml([kustomization])
    return files


def _file_name(manifest: Mapping[str, Any]) -> str:
    """`job-train`: which object it is, without what changes with every revision."""
    last = str(manifest["metadata"]["name"]).rpartition("-")[2]
    return f"{str(manifest['kind']).lower()}-{last}"
