"""The chart renders the very objects of `sftjob render`, and refuses in the same words."""

import json
import textwrap
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from sftjob.errors import SpecError
from sftjob.spec import JobSpec, Profile, canonical_json
from sftjob.spec.load import load_profile, load_spec
from tests.chart.compare import CHART, NEEDS_HELM, differences, helm, problems, refusals, rendered, templated, values
from tests.chart.specs import SMALLEST, Generator, all_fields, fields_in, read

pytestmark = NEEDS_HELM
ROOT = CHART.parents[1]
GOLDEN = ROOT / "tests/golden"
EXAMPLES = [file for file in (ROOT / "examples").rglob("*.yaml") if "profiles" not in file.parts]
SPECS = sorted([*EXAMPLES, *(GOLDEN / "specs").glob("*.yaml")])
PROFILES = sorted([*(ROOT / "examples/profiles").glob("*.yaml"), *(ROOT / "k8s").rglob("profile.yaml")])
SEEDS = range(10)
SPECS_OF_A_SEED = 30


@pytest.mark.parametrize("file", SPECS, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_spec_on_file_is_the_same_through_helm(file: Path, tmp_path: Path) -> None:
    profile_file = GOLDEN / "profiles" / file.name
    if file.parent != GOLDEN / "specs" or not profile_file.exists():
        profile_file = tmp_path / "profile.yaml"
        profile_file.write_text("storage: {uri: s3://runs/team}\nwandb_secret: {name: wandb, key: key}\n")
    spec, profile = load_spec(file).spec, load_profile(profile_file)
    _assert_same(spec, profile, _joined(file, profile_file))


@pytest.mark.parametrize(
    "spec_file", [GOLDEN / "specs/lora-one-gpu.yaml", GOLDEN / "specs/qlora-two-nodes.yaml"], ids=lambda file: file.stem
)
@pytest.mark.parametrize("file", PROFILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_profile_on_file_is_the_same_through_helm(file: Path, spec_file: Path) -> None:
    _assert_same(load_spec(spec_file).spec, load_profile(file), _joined(spec_file, file))


@pytest.mark.e2e
@pytest.mark.parametrize("seed", SEEDS)
def test_random_specs_are_the_same_through_helm(seed: int) -> None:
    for spec, profile in Generator(seed).pairs(SPECS_OF_A_SEED):
        loaded = read(spec, profile)
        assert loaded
        assert not [*differences(rendered(*loaded), templated(values(spec, profile)))], values(spec, profile)


@pytest.mark.e2e
def test_random_specs_use_every_field() -> None:
    used: set[tuple[str, str]] = set()
    for seed in SEEDS:
        for pair in Generator(seed).pairs(SPECS_OF_A_SEED):
            loaded = read(*pair)
            assert loaded
            used.update(chain.from_iterable(map(fields_in, loaded)))

    assert sorted(all_fields() - used) == []


@pytest.mark.parametrize(
    ("spec", "profile"),
    [
        ({"launch": {"gpu": "NVIDIA-L4", "gpus_per_node": 0}}, {}),
        ({"launch": {"gpu": "NVIDIA-L4"}}, {"node_selector": {"nvidia.com/gpu.product": "NVIDIA-A10"}}),
        (
            {"launch": {"gpus_per_node": 2}, "resources": {"evaluation": {"gpus": 3}}},
            {"gpu": {"resource": "nvidia.com/mig-1g.10gb"}},
        ),
        ({"resources": {"cpu": "50m", "memory": "500m", "ephemeral_storage": "1M", "shared_memory": "1Ki"}}, {}),
        ({"resources": {"memory": "2Gi", "shared_memory": "2048Mi"}}, {}),
        ({"resources": {"evaluation": {"memory": "1Gi"}}}, {}),
        ({"resources": {"evaluation": {"cpu": "1m", "shared_memory": "64Gi"}}}, {}),
        ({"storage": {}}, {}),
        ({"storage": {"uri": "/mnt/runs"}}, {}),
        ({"storage": {"endpoint_url": "http://LOCALHOST:9000"}}, {"storage": {"endpoint_url": "http://[::1]:1"}}),
        ({"model": {"path": "models/tiny"}}, {}),
        ({"data": {"train": [{"uri": "s3://data/a"}, {"path": "b.jsonl"}], "eval": [{"path": "c.jsonl"}]}}, {}),
        ({"data": {"train": [{"uri": "s3://data/a"}], "template": {"path": "chat.jinja"}}}, {}),
        ({"monitoring": {"report_to": ["wandb"]}}, {}),
        ({"launch": {"nodes": 2}}, {"model_cache": {"size": "10Gi"}}),
        ({}, {"service_account": {"name": "trainers", "annotations": {"a": "b"}}}),
        ({"kubernetes": {"labels": {"job-name": "a", "sftjob.dev/x": "b"}, "annotations": {"sftjob.dev/y": "c"}}}, {}),
        ({"kubernetes": {"labels": {"kueue.x-k8s.io/queue-name": "a"}}}, {"queue": {"name": "q"}}),
        ({}, {"pod_labels": {"app.kubernetes.io/x": "a"}, "pod_annotations": {"sftjob.dev/x": "b"}}),
        ({}, {"env": {"SFTJOB_SPEC": "x", "MASTER_ADDR": "z", "WORLD_SIZE": "2", "WORLD_SIZES": "ok"}}),
        ({"name": "a" * 30, "launch": {"nodes": 1000}}, {"engine": "jobset"}),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_what_cannot_become_a_pod_is_refused_in_the_same_words(spec: dict[str, Any], profile: dict[str, Any]) -> None:
    written = {**SMALLEST, **spec}
    expected = problems(
        JobSpec.model_validate_json(canonical_json(written)), Profile.model_validate_json(canonical_json(profile))
    )

    assert expected
    assert refusals(values(written, profile)) == expected


@pytest.mark.parametrize(
    "profile",
    [
        {"images": {"train": "a:latest", "eval": "registry:5000/b", "gate": "c@sha256:00"}},
        {"env": {"MY_TOKEN": "a", "NOT_BAD": "b"}},
        {"env": {"A B": "c"}},
        {"model_cache": {"claim": "a", "size": "1Gi"}},
        {"model_cache": {"access_mode": "ReadWriteMany"}},
        {"model_cache": {"claim": "a", "storage_class_name": "x"}},
        {"queue": {"name": "q", "topology": {"mode": "required"}}},
        {"queue": {"name": "q", "topology": {"mode": "unconstrained", "level": "rack"}}},
    ],
    ids=str,
)
def test_rules_of_the_models_are_the_same_words(profile: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(json.dumps(profile))
    with pytest.raises(SpecError) as raised:
        load_profile(file)

    expected = sorted(f"profile.{replace(problem, file='', line=0)}" for problem in raised.value.problems)
    assert refusals(values(SMALLEST, profile)) == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"salt": "hf_" + "a1" * 12}, "Hugging Face token"),
        ({"salt": "AKIA" + "A1" * 8}, "AWS access key"),
        ({"monitoring": {"wandb_project": "https://me:secret@host/x"}}, "user or password"),
    ],
)
def test_a_secret_is_refused_and_not_repeated(changes: dict[str, Any], said: str) -> None:
    called = helm("template", "release", str(CHART), "--values=-", stdin=values({**SMALLEST, **changes}))

    assert called.returncode != 0
    assert said in called.stderr
    for secret in ("a1a1a1", "A1A1A1", "me:secret"):
        assert secret not in called.stderr


def test_an_at_sign_elsewhere_is_no_secret() -> None:
    assert templated(values({**SMALLEST, "model": {"uri": "s3://models"}, "salt": "somebody@example.com"}))


def _joined(spec: Path, profile: Path) -> str:
    """Values with the text of both files: Helm reads the person's YAML with a reader of its own."""
    return "".join(
        f"{half}:\n{textwrap.indent(file.read_text(), '  ')}\n" for half, file in (("spec", spec), ("profile", profile))
    )


def _assert_same(spec: JobSpec, profile: Profile, file: str) -> None:
    if expected := problems(spec, profile):
        assert refusals(file) == expected
    else:
        assert not [*differences(rendered(spec, profile), templated(file))]
