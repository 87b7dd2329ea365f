"""Every example of a profile is one that loads and that a job for GPUs lands with."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from sftjob.place import place
from sftjob.render import manifests_yaml, render
from sftjob.spec import JobSpec, Profile, load_profile, load_spec

EXAMPLES = Path(__file__).parents[2] / "examples"
PROFILES = sorted((EXAMPLES / "profiles").glob("*.yaml"))
NODES = {
    "eks-irsa": 2,
    "eks": 2,
    "bare-metal": 2,
    "gke": 1,  # a volume that one node mounts
    "aks": 1,
    "kind": 2,
}


def spec_for(path: Path) -> JobSpec:
    """An example for a GPU that names no store of its own, on so many nodes."""
    overrides = ["storage={}", f"launch.nodes={NODES[path.stem]}", "launch.gpus_per_node=8"]
    return load_spec(EXAMPLES / "llama-3.1-8b-lora.yaml", overrides=overrides).spec


def rendered(path: Path) -> list[dict[str, Any]]:
    spec = spec_for(path)
    return list(yaml.safe_load_all(manifests_yaml(render(place(spec, load_profile(path)), spec))))


def train_pod(objects: list[dict[str, Any]]) -> dict[str, Any]:
    train = next(each for each in objects if each["metadata"]["name"].endswith("-train") and "template" in str(each))
    job = train["spec"]["replicatedJobs"][0]["template"] if train["kind"] == "JobSet" else train
    pod: dict[str, Any] = job["spec"]["template"]
    return pod


def test_the_clouds_are_there() -> None:
    assert {path.stem for path in PROFILES} == NODES.keys()
    assert {"eks", "gke", "aks", "bare-metal", "kind"} <= NODES.keys()


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_job_for_gpus_lands(path: Path) -> None:
    profile = load_profile(path)
    objects = rendered(path)
    pod = train_pod(objects)["spec"]
    (container,) = pod["containers"]
    variables = {each["name"]: each.get("value") for each in container["env"]}

    assert {each["metadata"]["namespace"] for each in objects} == {profile.namespace}
    assert container["resources"]["limits"]["nvidia.com/gpu"] in (8, "8")
    assert profile.images is not None
    assert container["image"] == profile.images.train
    assert variables["SFTJOB_STORAGE_URI"] == profile.storage.uri
    assert variables.get("AWS_ENDPOINT_URL_S3") == profile.storage.endpoint_url
    assert not any("external" in str(value) or "127.0.0.1" in str(value) for value in variables.values())


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_it_says_nothing_that_is_not_used(path: Path) -> None:
    """A field that equals its default would make people think that it has to be there."""
    defaults, profile = Profile(), load_profile(path)
    idle = {name for name in profile.model_fields_set if getattr(profile, name) == getattr(defaults, name)}

    assert not idle


def test_identities_of_the_clouds() -> None:
    accounts = {path.stem: train_pod(rendered(path))["spec"].get("serviceAccountName") for path in PROFILES}
    brought = [each for each in rendered(EXAMPLES / "profiles" / "eks-irsa.yaml") if each["kind"] == "ServiceAccount"]

    assert accounts["eks"] == "sftjob"
    assert not [each for each in rendered(EXAMPLES / "profiles" / "eks.yaml") if each["kind"] == "ServiceAccount"]
    assert len(brought) == 2
    for each in brought:
        assert each["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].startswith("arn:aws:iam::")


def test_gke_selects_by_its_own_label() -> None:
    selector = train_pod(rendered(EXAMPLES / "profiles" / "gke.yaml"))["spec"]["nodeSelector"]

    assert selector == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
