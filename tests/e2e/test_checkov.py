"""checkov's Kubernetes checks find nothing in what is rendered that docs/kubernetes.md does not explain.

checkov has a great many dependencies of its own, so it gets an environment of its own.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

pytestmark = pytest.mark.e2e

ROOT: Final = Path(__file__).parents[2]
GOLDEN: Final = ROOT / "tests" / "golden" / "manifests"
CHECKOV: Final = "checkov==3.3.30"
ALWAYS: Final = {"CKV_K8S_15", "CKV_K8S_38"}
"""What no profile changes."""


@pytest.fixture(scope="module")
def checkov(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkov")
    uv = Path(sys.executable).parent / "uv"
    python = folder / "bin" / "python"
    for command in ([uv, "venv", "--quiet", folder], [uv, "pip", "install", "--quiet", "--python", python, CHECKOV]):
        subprocess.run(command, check=True, timeout=600)
    return folder / "bin" / "checkov"


@pytest.fixture(scope="module")
def findings(checkov: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Check ids by golden file."""
    folder = tmp_path_factory.mktemp("manifests")
    for path in GOLDEN.glob("*.yaml"):
        objects = [each for manifest in yaml.safe_load_all(path.read_text()) for each in as_checked(manifest)]
        (folder / f"{path.stem}.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    command = [checkov, "--framework", "kubernetes", "--directory", folder, "--output", "json", "--skip-download"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=600, env={**os.environ, "LOG_LEVEL": "ERROR"}
    )
    results: dict[str, Any] = json.loads(done.stdout)["results"]
    assert len(results["passed_checks"]) > 500, "checkov has looked at something"
    found: dict[str, set[str]] = {path.stem: set() for path in GOLDEN.glob("*.yaml")}
    for check in results["failed_checks"]:
        found[Path(check["file_path"]).stem].add(check["check_id"])
    return found


def as_checked(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """checkov does not know JobSets, so it gets their Job."""
    if manifest["kind"] != "JobSet":
        yield manifest
        return
    (replicated,) = manifest["spec"]["replicatedJobs"]
    yield {"apiVersion": "batch/v1", "kind": "Job", "metadata": manifest["metadata"], **replicated["template"]}


def explained() -> set[str]:
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| (CKV2?_K8S_\d+) \| .+ \| .+ \|$", page, flags=re.MULTILINE))


def test_the_docs_explain_all_that_is_found_and_nothing_else(findings: dict[str, set[str]]) -> None:
    assert set().union(*findings.values()) == explained()


@pytest.mark.parametrize("name", ["careful-platform", "jobset-gang"])
def test_a_careful_profile_leaves_little(findings: dict[str, set[str]], name: str) -> None:
    assert findings[name] <= ALWAYS


def test_it_would_find_something(checkov: Path, tmp_path: Path) -> None:
    pod = {"name": "a", "image": "a:latest", "securityContext": {"privileged": True}}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [pod]}}
    (tmp_path / "pod.json").write_text(json.dumps(manifest))

    done = subprocess.run(
        [checkov, "--framework", "kubernetes", "--file", tmp_path / "pod.json", "--output", "json", "--skip-download"],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip

    found = {check["check_id"] for check in json.loads(done.stdout)["results"]["failed_checks"]}
    assert {"CKV_K8S_16", "CKV_K8S_14", "CKV_K8S_22"} <= found
