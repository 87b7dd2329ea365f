"""Spec and profile to manifests as text, and a spec to what it resolves to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from sftjob.errors import InputMissing, SftjobError
from sftjob.inputs import base_name, pin_local
from sftjob.model_folder import parse_config
from sftjob.model_source import fetch_config
from sftjob.place import place
from sftjob.plan import model_facts
from sftjob.render import manifests_yaml, render
from sftjob.resolve import resolve
from sftjob.spec import HubModel, JobSpec, PinnedModel, Profile, load_profile, load_spec


def manifests(spec: Path, profile: Path | None, overrides: Sequence[str]) -> str:
    """The YAML that `kubectl apply -f -` takes.

    Raises:
        SftjobError: with file and line.
    """
    loaded = load_spec(spec, overrides=overrides)
    platform = load_profile(profile) if profile else Profile()
    try:
        return manifests_yaml(render(place(loaded.spec, platform), loaded.spec))
    except SftjobError as error:
        raise loaded.located(error) from error


def resolved_yaml(spec: Path, overrides: Sequence[str], *, config: Path | None = None) -> str:
    """The job as it would be stored in spec.json, as YAML: nothing optional is left.

    Args:
        spec: the job's file.
        overrides: `a.b=c`.
        config: the model's config.json; without it a folder's, the hub's or the store's is read.

    Raises:
        SftjobError: the spec or an input is wrong, or the config is out of reach.
    """
    loaded = load_spec(spec, overrides=overrides)
    try:
        pinned, inputs = pin_local(loaded.spec, loaded.folder)
        if config is None:
            found, name = _fetched(pinned, inputs), "config.json"
        else:
            found, name = _read(config), str(config)
        job = resolve(pinned, model_facts(found, file=name))
    except SftjobError as error:
        raise loaded.located(error) from error
    return yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def _read(config: Path) -> dict[str, object]:
    try:
        data = config.read_bytes()
    except OSError as error:
        raise InputMissing(
            f"cannot be read: {error.strerror}", file=str(config), hint="name the model's config.json"
        ) from error
    return parse_config(data, name=str(config.parent))


def _fetched(spec: JobSpec, inputs: Mapping[str, Path]) -> dict[str, object]:
    """From the model's folder, or from the hub or store where they can be reached."""
    storage = spec.storage
    try:
        return fetch_config(
            spec.model, store_root=None, inputs=inputs, endpoint_url=storage.endpoint_url, region=storage.region
        )
    except SftjobError as error:
        if isinstance(spec.model, PinnedModel):
            raise
        where = "the hub" if isinstance(spec.model, HubModel) else "its store"
        (first, *_) = error.problems
        raise type(error)(
            f"the config of {base_name(spec.model)} cannot be had from {where}: {first.reason}",
            field="model",
            hint="give the model's config.json with --config",
        ) from error
