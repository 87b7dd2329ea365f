"""Every method under every way to share the work: two gloo ranks train, resume, export; others load what they wrote."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sftjob.contract import ExitCode
from sftjob.methods import fine_tuning, load_tuned
from sftjob.resolved import ResolvedMethod, ResolvedQlora
from sftjob.spec import Strategy
from tests.train import tiny
from tests.train.test_packing import prepared_packs
from tests.train.tiny import FULL, LORA, QLORA, SEED, VOCAB, Run
from tests.train.watched_worker import LOGITS, PROMPT

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
METHODS = {"full": FULL, "lora": LORA, "qlora": QLORA}
SHARED: tuple[Strategy, ...] = ("zero1", "zero2", "zero3")
EACH = pytest.mark.parametrize("name", METHODS)
Launched = Callable[[str, Strategy], Run]

LOAD = """
import json, sys, torch
from pathlib import Path
from tests.train.test_launch import METHODS, logits_of, loaded
for name, strategy, base, export, out in json.loads(sys.argv[1]):
    torch.save(logits_of(loaded(name, strategy, Path(base), Path(export))), out)
"""


def method_under(name: str, strategy: Strategy) -> ResolvedMethod:
    method = METHODS[name]
    if isinstance(method, ResolvedQlora) and strategy == "zero3":
        return method.model_copy(update={"bnb_4bit_quant_storage": "fp32"})
    return method


def loaded(name: str, strategy: Strategy, base: Path, export: Path) -> torch.nn.Module:
    quantization = fine_tuning(method_under(name, strategy)).quantization("fp32")
    return load_tuned(base, export, vocab_size=VOCAB, dtype=torch.float32, seed=SEED, quantization=quantization)


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor(PROMPT)).logits
    return logits


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_data: Path) -> Launched:
    """Two ranks, six steps, a checkpoint after the third; each combination once."""
    runs: dict[tuple[str, Strategy], Run] = {}

    def get(name: str, strategy: Strategy) -> Run:
        if (name, strategy) not in runs:
            job = tiny.job(method_under(name, strategy), processes=2, strategy=strategy)
            root = tmp_path_factory.mktemp("launch") / f"{name}-{strategy}"
            work = tiny.prepare(root, job, model=tiny_model, data=tiny_data)
            runs[name, strategy] = tiny.run_apart(work, processes=2, module="tests.train.watched_worker")
        return runs[name, strategy]

    return get


@EACH
@pytest.mark.parametrize("strategy", ["ddp", *SHARED])
def test_trains(name: str, strategy: Strategy, launched: Launched) -> None:
    run = launched(name, strategy)
    assert [result.exit_code for result in run.results] == [ExitCode.DONE] * 2, run.output
    assert (run.environment.ran["sharding"], run.environment.ran["world_size"]) == (
        "none" if strategy == "ddp" else f"ZeRO-{strategy[-1]}",
        2,
    )
    losses = [float.fromhex(loss) for _, loss in run.losses]
    assert losses[-1] < losses[0]
    assert run.saved == {3: {0, 1}, 6: {0, 1}}


@EACH
@pytest.mark.parametrize("strategy", SHARED)
def test_losses_are_those_of_the_unshared_run(name: str, strategy: Strategy, launched: Launched) -> None:
    """Within what another order of sums makes of float32."""
    whole, shared = (launched(name, each) for each in ("ddp", strategy))
    for kind in ("train", "eval"):
        expected, found = ([line.loss for line in run.metrics if line.kind == kind] for run in (whole, shared))
        assert found == pytest.approx(expected, rel=1e-6)


@EACH
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_resume_is_exact(name: str, strategy: Strategy, launched: Launched, tmp_path: Path) -> None:
    whole = launched(name, strategy)
    given = tiny.prepare(
        tmp_path / "next",
        tiny.job(method_under(name, strategy), processes=2, strategy=strategy),
        model=_input(whole, "model"),
        data=_input(whole, "data"),
        resume=whole.work.checkpoint(3),
        attempt=2,
    )
    again = tiny.run_apart(given, processes=2)
    assert again.result.exit_code == ExitCode.DONE, again.output
    assert again.weights() == whole.weights()
    assert again.losses == whole.losses[-len(again.losses) :]
    assert [step for step, _ in again.losses] == [4, 6]


def test_exports_give_the_trained_models_logits_in_a_fresh_process(launched: Launched, tmp_path: Path) -> None:
    runs = {(name, strategy): launched(name, strategy) for name in METHODS for strategy in ("ddp", *SHARED)}
    asked = [
        (name, strategy, str(_input(run, "model")), str(run.work.export), str(tmp_path / f"{name}-{strategy}.pt"))
        for (name, strategy), run in runs.items()
    ]
    subprocess.run([sys.executable, "-c", LOAD, json.dumps(asked)], check=True, cwd=Path(__file__).parents[2])
    for (name, strategy, base, _, out), run in zip(asked, runs.values(), strict=True):
        trained, reloaded = torch.load(run.work.root / LOGITS), torch.load(out)
        assert torch.equal(reloaded, trained), (name, strategy)
        fresh = torch.tensor(float("nan")) if name == "full" else logits_of(_untrained(name, strategy, Path(base)))
        assert not torch.equal(reloaded, fresh), (name, strategy)


def test_one_process_under_zero(
    tmp_path: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As offloading on a single GPU needs it. Nothing is compiled: a machine need not have a compiler."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "compiled"))
    monkeypatch.setenv("CXX", "/bin/false")
    job = tiny.job(LORA, strategy="zero2", max_steps=4)
    run = tiny.run_apart(tiny.prepare(tmp_path / "run", job, model=tiny_model, data=tiny_data))
    assert run.result.exit_code == ExitCode.DONE, run.output
    assert run.environment.ran["sharding"] == "ZeRO-2"
    assert not (tmp_path / "compiled").exists()


def test_packs_and_recomputed_activations_under_zero3(tmp_path: Path, tiny_model: Path) -> None:
    """The isolation probe needs every rank's share of the weights, and PEFT another kind of checkpointing."""
    data = prepared_packs(tmp_path / "packed")
    plain, recomputed = (
        tiny.run_apart(
            tiny.prepare(
                tmp_path / f"checkpointing-{on}",
                tiny.job(
                    LORA,
                    processes=2,
                    strategy="zero3",
                    packing=True,
                    gradient_checkpointing=on,
                    precision="bf16",
                    max_steps=3,
                    logging_steps=1,
                ),
                model=tiny_model,
                data=data,
            ),
            processes=2,
        )
        for on in (False, True)
    )
    for run in (plain, recomputed):
        assert run.result.exit_code == ExitCode.DONE, run.output
    assert recomputed.environment.ran["gradient_checkpointing"] == "on"
    assert recomputed.environment.ran["trained_dtype"] == "bfloat16"
    assert recomputed.losses == plain.losses


def _input(run: Run, name: str) -> Path:
    given = json.loads(run.work.rank_input.read_bytes())
    return Path(given[name])


def _untrained(name: str, strategy: Strategy, base: Path) -> torch.nn.Module:
    from sftjob.methods import load_base  # noqa: PLC0415

    quantization = fine_tuning(method_under(name, strategy)).quantization("fp32")
    return load_base(base, vocab_size=VOCAB, dtype=torch.float32, seed=SEED, quantization=quantization).eval()
