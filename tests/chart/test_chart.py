"""What the chart does by itself, without a cluster: lint, values, names, and what it puts on objects."""

import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.compare import CHART, NEEDS_HELM, helm, refusals, templated, values
from tests.chart.specs import SMALLEST

pytestmark = NEEDS_HELM


def objects(file: str, *options: str, chart: Path = CHART) -> list[Any]:
    called = helm("template", "release", str(chart), "--values=-", *options, stdin=file)
    assert called.returncode == 0, called.stderr
    return [*yaml.safe_load_all(called.stdout)]


@pytest.mark.parametrize("file", [None, *sorted((CHART / "ci").glob("*-values.yaml"))], ids=str)
def test_lint_finds_nothing(file: Path | None) -> None:
    linted = helm("lint", "--strict", str(CHART), *([f"--values={file}"] if file else []))

    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "[WARNING]" not in linted.stdout


@pytest.mark.parametrize("file", sorted((CHART / "ci").glob("*-values.yaml")), ids=lambda file: file.name)
def test_values_for_ci_render(file: Path) -> None:
    assert templated(file.read_text())


def test_no_spec_is_refused_with_what_to_do() -> None:
    (line,) = refusals("")

    assert line.startswith("spec: is empty")
    assert "helm upgrade --install release CHART -f FILE" in line


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (values({**SMALLEST, "trainin": {}}), "trainin"),
        (values({**SMALLEST, "training": {"max_steps": "ten"}}), "max_steps"),
        (values({**SMALLEST, "training": {"max_steps": None}}), "max_steps"),
        (values({**SMALLEST, "launch": {"nodes": 0}}), "nodes"),
        (values({**SMALLEST, "method": {"type": "magic"}}), "method"),
        (values({"name": "job"}), "model"),
        (values(SMALLEST, {"image": {}}), "image"),
        (values(SMALLEST, {"storage": {"credentials_secret": {"name": "store"}}}), "key"),
        (values(SMALLEST, keepOnUpgrad=True), "keepOnUpgrad"),
    ],
)
def test_the_schema_names_what_is_wrong(broken: str, named: str) -> None:
    called = helm("template", "release", str(CHART), "--values=-", stdin=broken)

    assert called.returncode != 0
    assert "values don't meet the specifications of the schema" in called.stderr
    assert named in called.stderr


def test_a_spec_that_holds_its_data_is_refused() -> None:
    prompts = ["x" * 19_000] * 7

    assert refusals(values({**SMALLEST, "evaluation": {"generation": {"prompts": prompts}}})) == [
        "spec: larger than 128 KiB as JSON; a spec names data, it does not hold them"
    ]


def test_a_package_renders_as_the_folder_does(tmp_path: Path) -> None:
    assert helm("package", str(CHART), f"--destination={tmp_path}").returncode == 0
    (package,) = tmp_path.glob("sftjob-*.tgz")

    assert objects(values(SMALLEST), chart=package) == objects(values(SMALLEST))
    with tarfile.open(package) as archive:
        assert not [name for name in archive.getnames() if "/ci/" in name]


def test_globals_of_a_parent_chart_are_taken() -> None:
    assert templated(values(SMALLEST, **{"global": {"anything": [1]}}))


def test_numbers_of_the_command_line_are_numbers() -> None:
    by_file = templated(values({**SMALLEST, "training": {"learning_rate": 2e-5}}))

    assert templated(values(SMALLEST), "--set-json=spec.training.learning_rate=2e-5") == by_file


def test_a_new_chart_version_changes_no_pod_and_no_name(tmp_path: Path) -> None:
    newer = tmp_path / "sftjob"
    shutil.copytree(CHART, newer)
    text = (newer / "Chart.yaml").read_text()
    (newer / "Chart.yaml").write_text(text.replace("\nversion: ", "\nversion: 9"))

    def named(chart: Path) -> dict[str, Any]:
        return {
            f"{each['kind']}/{each['metadata']['name']}": each.get("spec")
            for each in objects(values(SMALLEST), chart=chart)
        }

    assert named(newer) == named(CHART)


@pytest.mark.parametrize(
    ("spec", "profile", "same_run"),
    [
        ({}, {"images": {"train": "registry.example/sftjob:2"}}, True),
        ({"resources": {"memory": "33Gi"}}, {}, True),
        ({"evaluation": {"batch_size": 4}}, {}, True),
        ({"salt": "2"}, {}, False),
        ({"training": {"seed": 1}}, {}, False),
    ],
)
def test_what_pods_see_is_in_every_name(spec: dict[str, Any], profile: dict[str, Any], same_run: bool) -> None:
    before = {each["metadata"]["name"] for each in objects(values(SMALLEST))}
    after = {each["metadata"]["name"] for each in objects(values({**SMALLEST, **spec}, profile))}

    assert not before & after
    assert ({_run(name) for name in before} == {_run(name) for name in after}) is same_run


def test_the_namespace_is_in_no_name() -> None:
    elsewhere = objects(values(SMALLEST, {"namespace": "team"}))

    assert {each["metadata"]["namespace"] for each in elsewhere} == {"team"}
    assert {each["metadata"]["name"] for each in elsewhere} == {
        each["metadata"]["name"] for each in objects(values(SMALLEST))
    }


@pytest.mark.parametrize("keep", [False, True])
def test_objects_are_kept_only_where_asked_for(keep: bool) -> None:
    policies = {
        each["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
        for each in objects(values(SMALLEST, keepOnUpgrade=keep))
        if each["kind"] != "Pod"
    }

    assert policies == {"keep" if keep else None}


def test_nothing_of_helm_reaches_a_pod() -> None:
    templates = [each["spec"]["template"] for each in objects(values(SMALLEST)) if each["kind"] == "Job"]

    assert len(templates) == 3
    assert "helm" not in str(templates).lower()


def test_the_store_is_tried_by_a_pod_like_those_of_the_run() -> None:
    found = objects(
        values(
            SMALLEST,
            {"pod_labels": {"azure.workload.identity/use": "true"}, "hub_token_secret": {"name": "hub", "key": "t"}},
        )
    )
    (check,) = (each for each in found if each["kind"] == "Pod")
    (gate,) = (
        each["spec"]["template"]
        for each in found
        if each["metadata"]["name"].endswith("-gate") and each["kind"] == "Job"
    )

    assert check["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert check["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert check["spec"]["automountServiceAccountToken"] is False
    assert check["spec"]["serviceAccountName"].endswith("-pods")
    assert check["spec"]["containers"][0]["command"] == ["python", "-m", "sftjob.app.check_store"]
    for part in ("securityContext", "volumes", "restartPolicy"):
        assert check["spec"][part] == gate["spec"][part]


def _run(name: str) -> str:
    """`<run_id>` of `<run_id>-<4 hex>-<what>`."""
    return name.rsplit("-", 2)[0]
