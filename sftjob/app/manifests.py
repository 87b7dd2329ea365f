"""Spec and profile to manifests as text."""

from collections.abc import Sequence
from pathlib import Path

from sftjob.errors import SftjobError
from sftjob.place import place
from sftjob.render import manifests_yaml, render
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
