"""Spec and profile to manifests, as text or as files, and a spec to what it resolves to."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import yaml

from sftjob.app.model_config import read_facts
from sftjob.app.profiles import find_profile
from sftjob.errors import SftjobError, SpecError
from sftjob.inputs import pin_local, silent
from sftjob.place import place
from sftjob.place.notes import notes_on
from sftjob.render import Manifest, manifest_files, manifests_json, manifests_yaml, render
from sftjob.resolve import resolve
from sftjob.spec import load_spec
from sftjob.storage.local import placing_folder

_OUR_FILES: Final = re.compile(r"[0-9]{2}-[a-z]+-[a-z]+\.yaml|kustomization\.yaml")


def manifests(
    spec: Path,
    profile: str | None,
    overrides: Sequence[str],
    *,
    as_json: bool = False,
    progress: Callable[[str], None] = silent,
) -> str:
    """The text that `kubectl apply -f -` takes. Arguments and errors as `rendered`."""
    objects = rendered(spec, profile, overrides, progress=progress)
    return manifests_json(objects) if as_json else manifests_yaml(objects)


def write_manifests(
    folder: Path,
    spec: Path,
    profile: str | None,
    overrides: Sequence[str],
    *,
    kustomize: bool = False,
    progress: Callable[[str], None] = silent,
) -> list[Path]:
    """Writes a file for each object, and returns them in the order in which they are applied.

    A folder that this has written before is replaced as a whole, so that no object of an older rendering stays behind.
    Other arguments and errors as `rendered`.
    """
    files = manifest_files(rendered(spec, profile, overrides, progress=progress), kustomize=kustomize)
    if folder.exists() and (foreign := _foreign(folder)):
        raise SpecError(
            f"holds {foreign}, which this command has not written", file=str(folder), hint="name a folder of its own"
        )
    with placing_folder(folder) as partial:
        for name, text in files.items():
            (partial / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]


def rendered(
    spec: Path, profile: str | None, overrides: Sequence[str], *, progress: Callable[[str], None] = silent
) -> tuple[Manifest, ...]:
    """The objects of a job.

    Args:
        spec: the job's file.
        profile: file or name; see `find_profile`.
        overrides: `a.b=c`.
        progress: is told of a profile that nobody has named, and what is worth knowing.

    Raises:
        SftjobError: with file and line.
    """
    loaded = load_spec(spec, overrides=overrides)
    platform = find_profile(profile, progress=progress)
    try:
        placement = place(loaded.spec, platform)
    except SftjobError as error:
        raise loaded.located(error) from error
    for note in notes_on(placement):
        progress(f"note: {note}")
    return render(placement, loaded.spec)


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


def _foreign(folder: Path) -> str:
    """Name of something that is not ours; empty where all is."""
    if not folder.is_dir():
        return "no folder"
    return next((path.name for path in sorted(folder.iterdir()) if not _OUR_FILES.fullmatch(path.name)), "")
