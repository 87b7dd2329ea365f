"""The CPU twins of the examples run as they are written, only shorter."""

import subprocess
import sys
from pathlib import Path

import pytest

from sftjob.records import Export, read_record
from sftjob.spec import load_spec

pytestmark = pytest.mark.train
ROOT = Path(__file__).parents[2]
TWINS = sorted(path for path in (ROOT / "examples" / "cpu").glob("*.yaml") if not path.stem.startswith("sweep"))
SWEEP = sorted((ROOT / "examples" / "cpu").glob("sweep-*.yaml"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twins")
    subprocess.run([sys.executable, ROOT / "examples/demo/make_inputs.py", folder], check=True)
    return folder


@pytest.mark.parametrize("spec", [*TWINS, SWEEP[0]], ids=lambda path: path.stem)
def test_twin_runs(spec: Path, inputs: Path, tmp_path: Path) -> None:
    changes = {
        "model.path": inputs / "model",
        "data.train.0.path": inputs / "train.jsonl",
        "data.eval.0.path": inputs / "eval.jsonl",
        "training.num_train_epochs": 1,
        "storage.uri": tmp_path / "runs",
    }
    options = [word for field, value in changes.items() for word in ("--set", f"{field}={value}")]
    done = subprocess.run(
        [sys.executable, "-m", "sftjob.cli", "run", spec, "--no-evaluate", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (success,) = (tmp_path / "runs").glob("*/_SUCCESS")
    export = read_record(Export, success.read_bytes(), str(success))
    assert export.method == load_spec(spec).spec.method.type
    assert export.step > 0


def test_there_is_a_twin_of_each() -> None:
    for example in (ROOT / "examples").glob("llama-*.yaml"):
        twin = ROOT / "examples" / "cpu" / f"{example.stem.removeprefix('llama-3.1-')}.yaml"
        assert load_spec(twin).spec.method.type == load_spec(example).spec.method.type


def test_a_sweep_differs_in_one_number_alone() -> None:
    for folder, pattern in (("sweep", "*.yaml"), ("cpu", "sweep-*.yaml")):
        specs = [load_spec(path).spec for path in (ROOT / "examples" / folder).glob(pattern)]
        assert len({spec.training.learning_rate for spec in specs}) == len(specs) >= 3
        same = [
            spec.model_copy(
                update={"name": "sweep", "training": spec.training.model_copy(update={"learning_rate": None})}
            )
            for spec in specs
        ]
        assert all(spec == same[0] for spec in same)
