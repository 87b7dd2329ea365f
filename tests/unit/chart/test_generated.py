"""What the chart takes from the models is what the models say now, and what the schema promises."""

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sftjob import __version__

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts/sftjob"


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/generate.py, which is no package."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    for name in ("generate", "chart"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("generate")


def test_generated_files_are_current(generate: ModuleType) -> None:
    schemas = {"jobspec": generate.job_schema(), "profile": generate.profile_schema()}

    for name, text in generate.chart.files(generate.model_sections(schemas)).items():
        assert (CHART / name).read_text() == text, f"{name} is old: run `make verify`"


def test_the_chart_has_the_version_of_the_package() -> None:
    lines = (CHART / "Chart.yaml").read_text().splitlines()

    assert {f"version: {__version__}", f"appVersion: {__version__}"} <= {*lines}


def test_every_reference_of_the_schema_leads_somewhere() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    names = [*_references(schema)]

    assert names
    assert {name.removeprefix("#/definitions/") for name in names} <= schema["definitions"].keys()


def test_defaults_leave_no_choice_to_the_templates() -> None:
    defaults = json.loads((CHART / "files/defaults.json").read_text())

    assert defaults["spec"]["launch"]["nodes"] == 1
    assert defaults["profile"]["tolerations"]
    assert defaults["mebibytes"]["Gi"] == [1024, 1]
    assert defaults["mebibytes"]["m"] == [1, 1000 * 2**20]
    assert None not in [*_values(defaults)]


def _references(schema: Any) -> Any:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from _references(value)
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item)


def _values(value: Any) -> Any:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _values(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner)
    else:
        yield value
