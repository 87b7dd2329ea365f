"""Every hyperparameter reaches the training: each turn of a knob gives other weights."""

from pathlib import Path
from typing import Any

import pytest

from sftjob.contract import ExitCode
from tests.train import tiny
from tests.train.tiny import FULL

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
FLOOR = {"lr_scheduler_type": "cosine_with_min_lr"}
TURNS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "learning_rate": {"learning_rate": 5e-3},
    "linear": {"lr_scheduler_type": "linear"},
    "cosine": {"lr_scheduler_type": "cosine"},
    "constant_with_warmup": {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 3.0},
    "inverse_sqrt": {"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 1.0},
    "a tenth at the end": {**FLOOR, "min_lr_rate": 0.1},
    "half at the end": {**FLOOR, "min_lr_rate": 0.5},
    "warmup_steps": {"lr_scheduler_type": "linear", "warmup_steps": 2.0},
    "warmup as a share": {"lr_scheduler_type": "linear", "warmup_steps": 0.25},
    "weight_decay": {"weight_decay": 0.5},
    "adam_beta1": {"adam_beta1": 0.5},
    "adam_beta2": {"adam_beta2": 0.5},
    "adam_epsilon": {"adam_epsilon": 1e-2},
    "max_grad_norm": {"max_grad_norm": 0.01, "adam_epsilon": 1e-3},
    "neftune_noise_alpha": {"neftune_noise_alpha": 5.0},
    "more noise": {"neftune_noise_alpha": 15.0},
    "seed": {"seed": 8},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 2},
    "per_device_train_batch_size": {"per_device_train_batch_size": 3},
}


def _options(turn: dict[str, Any]) -> dict[str, Any]:
    return {"lr_scheduler_type": "constant", "max_steps": 4, "save_steps": 4, "eval_steps": 4, **turn}


def test_each_turn_gives_other_weights(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
    weights: dict[bytes, str] = {}
    for name, turn in TURNS.items():
        work = tiny.prepare(tmp_path / name, tiny.job(FULL, **_options(turn)), model=tiny_model, data=tiny_data)
        run = tiny.run_here(work)
        assert run.result.exit_code == ExitCode.DONE, (name, run.result.reason)
        assert run.weights() not in weights, f"{name} and {weights[run.weights()]}"
        weights[run.weights()] = name


def test_noise_goes_on_where_it_was(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
    """NEFTune draws from the generator that a checkpoint keeps."""
    job = tiny.job(FULL, neftune_noise_alpha=5.0)
    whole = tiny.run_here(tiny.prepare(tmp_path / "whole", job, model=tiny_model, data=tiny_data))
    first = tiny.interrupted_after(tiny.prepare(tmp_path / "first", job, model=tiny_model, data=tiny_data), 5)
    given = tiny.prepare(
        tmp_path / "next", job, model=tiny_model, data=tiny_data, resume=first.work.checkpoint(3), attempt=2
    )
    assert tiny.run_here(given).weights() == whole.weights()
