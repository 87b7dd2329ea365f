"""What each layer installs, and that every image gets versions that the project allows."""

from collections.abc import Mapping, Sequence
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement

from tests.unit.images.dockerfile import pins, script


def test_what_installs_torch_pins_it_and_what_it_needs(layers: Mapping[str, Sequence[str]]) -> None:
    assert layers["torch"][0] in pins("constraints.txt")
    names = {pin.partition("==")[0] for pin in layers["torch"]}
    needed = {requirement.name.lower() for requirement in _requirements_of("torch")}
    assert needed - {"setuptools", "triton"} <= names


def _requirements_of(name: str) -> list[Requirement]:
    parsed = [Requirement(line) for line in requires(name) or []]
    kept = [each for each in parsed if not each.marker or each.marker.evaluate({"extra": ""})]
    return [each for each in kept if not each.name.startswith(("nvidia-", "cuda-"))]


@pytest.mark.parametrize(
    ("layer", "file"), [("train", "constraints.txt"), ("gate", "constraints.txt"), ("eval", "images/vllm.txt")]
)
def test_every_package_has_one_version_that_the_project_allows(
    layer: str, file: str, layers: Mapping[str, Sequence[str]]
) -> None:
    versions = dict(pin.split(" ")[0].lower().split("==") for pin in pins(file))
    for requirement in map(Requirement, layers[layer]):
        assert requirement.specifier.contains(versions[requirement.name.lower()]), requirement


def test_every_image_that_a_gate_may_run_in_can_ask_the_cluster(layers: Mapping[str, Sequence[str]]) -> None:
    """A profile may name one image for everything."""
    for layer in ("train", "gate"):
        assert {"kubernetes", "boto3"} <= {Requirement(line).name for line in layers[layer]}


def test_the_gate_trains_nothing(layers: Mapping[str, Sequence[str]]) -> None:
    names = {Requirement(line).name for line in layers["gate"]}
    assert {"kubernetes", "boto3", "pydantic"} <= names
    assert not {"torch", "transformers", "datasets", "matplotlib"} & names


def test_evaluation_has_vllm_on_the_layer_of_torch_that_training_has(layers: Mapping[str, Sequence[str]]) -> None:
    assert "vllm" in layers["eval"]
    assert not [line for line in layers["eval"] if line.startswith("deepspeed")]
    assert layers["torch"][0] in pins("images/vllm.txt")


def test_a_package_without_a_version_is_refused() -> None:
    with pytest.raises(KeyError, match="torch"):
        script("images/pins.py").pinned(["numpy==2.0"], ["torch"])


def test_extras_that_name_extras_are_followed() -> None:
    project = {"name": "p", "dependencies": ["a"], "optional-dependencies": {"x": ["p[y]", "b"], "y": ["c"]}}
    assert script("images/pins.py").requirements(project, "x") == ["a", "b", "c"]
