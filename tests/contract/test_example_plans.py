"""The examples for GPUs fit the GPUs that they name, in the way that their comments promise, and render."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from sftjob.app.manifests import manifests, resolved_yaml
from sftjob.app.plan import Plan, check_fits, plan
from sftjob.app.validate import validate
from sftjob.spec import load_spec
from tests.unit.plan.shapes import LLAMA_8B, LLAMA_70B


@dataclass(frozen=True, kw_only=True)
class Promise:
    config: dict[str, Any]
    strategy: str
    recomputes: bool
    says: str
    """Of the strategy or of recomputing, in the example's own comment."""
    pods: int = 1


ON_ONE = Promise(config=LLAMA_8B, strategy="single", recomputes=False, says="")
PROMISES = {
    "llama-3.1-8b-lora": Promise(
        config=LLAMA_8B, strategy="single", recomputes=False, says="activations fit without recomputing them"
    ),
    "llama-3.1-8b-qlora": Promise(
        config=LLAMA_8B, strategy="single", recomputes=True, says="activations are recomputed"
    ),
    "llama-3.1-8b-full": Promise(config=LLAMA_8B, strategy="zero3", recomputes=False, says="ZeRO-3 shares out weights"),
    "llama-3.1-70b-qlora": Promise(
        config=LLAMA_70B, strategy="ddp", recomputes=True, says="every process holds it whole", pods=2
    ),
}
EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted([*EXAMPLES.glob("llama-*.yaml"), *EXAMPLES.glob("sweep/*.yaml")])
EACH = pytest.mark.parametrize("spec", FILES, ids=lambda path: path.stem)


def promise_of(spec: Path) -> Promise:
    return ON_ONE if spec.parent.name == "sweep" else PROMISES[spec.stem]


@pytest.fixture
def config(spec: Path, tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(promise_of(spec).config))
    return path


def planned(spec: Path, config: Path, *overrides: str) -> Plan:
    return plan(load_spec(spec, overrides=overrides), config=config)


@EACH
def test_fits_as_its_comment_says(spec: Path, config: Path) -> None:
    promise, made = promise_of(spec), planned(spec, config)

    check_fits(made)
    assert made.fits
    assert made.guesses == ()
    assert made.job.launch.strategy == promise.strategy
    assert made.job.training.gradient_checkpointing is promise.recomputes
    comment = spec.read_text(encoding="utf-8").partition("\nname:")[0]
    assert promise.says in " ".join(comment.replace("\n# ", " ").split())


@EACH
def test_uses_the_gpu_well(spec: Path, config: Path) -> None:
    """Matrices of 4,096 tokens or more, and steps of the rows that were asked for."""
    made = planned(spec, config)
    training = made.job.training

    assert training.per_device_train_batch_size * training.max_length >= 4096
    assert made.job.rows_per_step == load_spec(spec).spec.training.train_batch_size


def test_automatic_sharing_is_less_than_zero3(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA_8B))
    made = planned(EXAMPLES / "llama-3.1-8b-full.yaml", config, "launch.strategy=auto")

    assert made.fits
    assert made.job.launch.strategy == "zero1"


@EACH
def test_validates(spec: Path, config: Path) -> None:
    assert all(line.startswith("ok ") for line in validate(load_spec(spec), config=config))


@EACH
def test_renders(spec: Path, config: Path) -> None:
    promise = promise_of(spec)
    (job,) = [
        each for each in yaml.safe_load_all(manifests(spec, None, ())) if each["kind"] == "Job" and is_train(each)
    ]
    resolved = yaml.safe_load(resolved_yaml(spec, (), config=config))

    assert job["spec"]["completions"] == promise.pods
    assert resolved["launch"]["strategy"] == promise.strategy
    assert (resolved["launch"]["deepspeed"] is not None) is promise.strategy.startswith("zero")


def is_train(job: dict[str, Any]) -> bool:
    return bool(job["metadata"]["labels"]["app.kubernetes.io/component"] == "train")


def test_every_example_is_here() -> None:
    assert {path.stem for path in FILES if path.parent == EXAMPLES} == PROMISES.keys()
