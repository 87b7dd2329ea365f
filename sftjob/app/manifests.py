"""Spec and profile to manifests as text, and a spec to what it resolves to."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from sftjob.app.model_config import read_facts
from sftjob.errors import SftjobError
from sftjob.inputs import pin_local
from sftjob.place import place
from sftjob.render import manifests_yaml, render
from sftjob.resolve import resolve
from sftjob.spec import Profile, load_profile, load_spec


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
        pinned, _ = pin_local(loaded.spec, loaded.folder)
        job = resolve(pinned, read_facts(loaded, config))
    except SftjobError as error:
        raise loaded.located(error) from error
    return yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
