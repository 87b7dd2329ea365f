"""The chart's objects beside those of `render`, without what Helm itself puts on them."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sftjob.contract import Label
from sftjob.errors import SpecError
from sftjob.place import place
from sftjob.render import render
from sftjob.spec import JobSpec, Profile

CHART: Final = Path(__file__).resolve().parents[2] / "charts/sftjob"
NOT_RENDERED: Final = ("app.kubernetes.io/instance", "app.kubernetes.io/version", "helm.sh/")
"""Labels and annotations that only the chart writes, or how they begin."""
NEEDS_HELM: Final = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not on PATH")
Objects = dict[str, Any]


def values(spec: Any, profile: Any = None, **more: Any) -> str:
    """Values of a release as a file; JSON is YAML."""
    return json.dumps({"spec": spec, "profile": profile or {}, **more}, ensure_ascii=False)


def rendered(spec: JobSpec, profile: Profile) -> Objects:
    """What `sftjob render` prints, by kind and the last part of the name."""
    return _by_name([*render(place(spec, profile), spec)])


def templated(file: str, *options: str) -> Objects:
    """What `helm template` prints, by kind and the last part of the name, without what the chart adds to metadata."""
    called = helm("template", "release", str(CHART), "--values=-", *options, stdin=file)
    assert called.returncode == 0, called.stderr
    objects = [*yaml.load_all(called.stdout, yaml.CSafeLoader)]
    return _by_name([_without_helm(each) for each in objects if each["kind"] != "Pod"])


def problems(spec: JobSpec, profile: Profile) -> list[str]:
    """What keeps `sftjob render` from rendering, each in one line, as the chart names the fields."""
    try:
        place(spec, profile)
    except SpecError as error:
        lines = [str(problem) for problem in error.problems]
        return sorted(line if line.startswith("profile.") else f"spec.{line}" for line in lines)
    return []


def refusals(file: str) -> list[str]:
    """What keeps the chart from rendering, each in one line; nothing when it renders."""
    called = helm("template", "release", str(CHART), "--values=-", stdin=file)
    if called.returncode == 0:
        return []
    lines = called.stderr.partition("\n\n")[0].splitlines()
    assert "execution error" in lines[0], called.stderr
    return sorted(lines[1:])


def helm(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(["helm", *arguments], input=stdin, text=True, capture_output=True, check=False, timeout=300)


def differences(left: object, right: object, place: str = "") -> Iterator[str]:
    """Each place where two values differ, for people."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted({*left, *right}):
            yield from differences(left.get(key, "absent"), right.get(key, "absent"), f"{place}.{key}")
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, pair in enumerate(zip(left, right, strict=True)):
            yield from differences(*pair, f"{place}.{index}")
    elif left != right or type(left) is not type(right):
        yield f"{place}: {left!r} against {right!r}"


def _by_name(objects: list[Any]) -> Objects:
    named = {f"{each['kind']}/{each['metadata']['name'].rpartition('-')[2]}": each for each in objects}
    assert len(named) == len(objects), "two objects under one name"
    return named


def _without_helm(manifest: Any) -> Any:
    metadata = manifest["metadata"]
    assert metadata["labels"][Label.MANAGED_BY.value] == "Helm"
    metadata["labels"][Label.MANAGED_BY.value] = "sftjob"
    for part in ("labels", "annotations"):
        kept = {key: value for key, value in metadata.pop(part, {}).items() if not key.startswith(NOT_RENDERED)}
        if kept:
            metadata[part] = kept
    return manifest
