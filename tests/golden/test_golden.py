"""Whole manifests as text. `pytest tests/golden --update-golden` writes them; read what changed before keeping it."""

from pathlib import Path

import pytest
import yaml

from sftjob.place import place
from sftjob.render import Manifest, manifests_yaml, render
from sftjob.spec import Profile
from sftjob.spec.load import load_profile, load_spec

HERE = Path(__file__).parent
SPECS = sorted((HERE / "specs").glob("*.yaml"))


def _render(spec_file: Path) -> tuple[Manifest, ...]:
    spec = load_spec(spec_file).spec
    profile_file = HERE / "profiles" / spec_file.name
    profile = load_profile(profile_file) if profile_file.exists() else Profile()
    return render(place(spec, profile), spec)


@pytest.mark.parametrize("spec_file", SPECS, ids=lambda path: path.stem)
def test_golden(spec_file: Path, request: pytest.FixtureRequest) -> None:
    golden = HERE / "manifests" / spec_file.name
    text = manifests_yaml(_render(spec_file))
    if request.config.getoption("--update-golden"):
        golden.write_text(text, encoding="utf-8")
    assert golden.exists(), f"no golden file; look at what `pytest tests/golden --update-golden` writes: {golden.name}"
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("spec_file", SPECS, ids=lambda path: path.stem)
def test_yaml_means_what_was_rendered(spec_file: Path) -> None:
    manifests = _render(spec_file)

    assert tuple(yaml.safe_load_all(manifests_yaml(manifests))) == manifests


@pytest.mark.parametrize("folder", ["manifests", "profiles"])
def test_no_orphans(folder: str) -> None:
    orphans = {path.name for path in (HERE / folder).iterdir()} - {path.name for path in SPECS}

    assert not orphans, f"no spec of that name in tests/golden/specs: {sorted(orphans)}"


def test_there_are_specs() -> None:
    assert len(SPECS) >= 3
