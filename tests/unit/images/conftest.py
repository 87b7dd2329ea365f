"""What the manifests ask of the images, and what the images install."""

import tomllib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.unit.images.dockerfile import ROOT, pins, script


@pytest.fixture(scope="module")
def images() -> ModuleType:
    return script("scripts/images.py")


@pytest.fixture(scope="module")
def layers() -> Mapping[str, Sequence[str]]:
    """What each layer installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    made: Mapping[str, Sequence[str]] = script("images/pins.py").layers(project, pins("constraints.txt"))
    return made


@pytest.fixture(scope="module")
def pods() -> list[dict[str, Any]]:
    """Pods of every golden manifest."""
    documents = [
        document
        for path in sorted((ROOT / "tests/golden/manifests").glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]
    found = [each["spec"]["template"]["spec"] for each in documents if each["kind"] == "Job"]
    assert found
    return found
