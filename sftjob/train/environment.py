"""What was asked for and what runs, written down before the first step; a difference that matters ends the run."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Final

import torch

from sftjob.errors import ConfigurationError, Problem
from sftjob.methods import count_parameters
from sftjob.methods.load import ATTENTION
from sftjob.plan import estimate_of
from sftjob.plan.inventory import inventory
from sftjob.records import Environment
from sftjob.resolve import ResolvedJob
from sftjob.resolved import ResolvedFull, ResolvedMethod
from sftjob.storage.local import placing
from sftjob.train.collate import SEQ_LENGTHS
from sftjob.train.trainer import RunTrainer
from sftjob.train.workdir import RankInput

_PACKAGES: Final = ("sftjob", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "safetensors")
_FIELDS: Final = {
    "world_size": "launch",
    "rows_per_step": "training.per_device_train_batch_size",
    "packing": "training.packing",
    "attention": "model",
    "sharding": "launch.strategy",
    "trained_dtype": "training.precision",
    "quantized": "method.type",
    "train_rows": "data",
    "precision": "training.precision",
    "gradient_checkpointing": "training.gradient_checkpointing",
}
"""What must be as asked, and the field of the spec that asks."""
_TOLERANCE: Final = 0.01
"""Of the number of trained parameters: a bias that config.json does not tell is no reason to stop."""


def describe(job: ResolvedJob, given: RankInput, trainer: RunTrainer) -> Environment:
    """The record of this attempt, once the trainer has prepared everything for the first step."""
    on_gpu = job.launch.device == "cuda"
    return Environment(
        attempt=given.attempt,
        index=given.node,
        versions=_versions(),
        device=torch.cuda.get_device_name() if on_gpu else platform.processor() or platform.machine(),
        device_count=torch.cuda.device_count() if on_gpu else torch.get_num_threads(),
        asked={
            "method": job.method.type,
            "world_size": job.launch.world_size,
            "rows_per_step": job.rows_per_step,
            "packing": _switch(job.training.packing),
            "precision": job.training.precision,
            "gradient_checkpointing": _switch(job.training.gradient_checkpointing),
            "attention": ATTENTION,
            "strategy": job.launch.strategy,
            "sharding": _sharding(job.launch.zero_stage),
            "trained_dtype": "bfloat16" if job.launch.zero_stage and job.training.precision == "bf16" else "float32",
            "quantized": "4 bit" if job.method.type == "qlora" else "no",
            **_planned(job, given),
            **({} if given.train_rows is None else {"train_rows": given.train_rows}),
        },
        ran=_ran(trainer),
    )


def check(environment: Environment) -> None:
    """Raises `ConfigurationError` with every difference that changes the result."""
    asked, ran = environment.asked, environment.ran
    problems = [
        Problem(
            field=field,
            reason=f"{name.replace('_', ' ')} {asked[name]} asked for, {ran[name]} ran",
            hint="start the run again; if it stays, the launch does not match the spec",
        )
        for name, field in _FIELDS.items()
        if name in asked and asked[name] != ran[name]
    ]
    planned, trained = (int(each.get("trainable_parameters", 0)) for each in (asked, ran))
    if planned and abs(trained - planned) > _TOLERANCE * planned:
        reason = f"{planned:,} trainable parameters planned, {trained:,} ran"
        problems.append(Problem(field="method", reason=reason, hint="please report this with the model's config.json"))
    if problems:
        raise ConfigurationError(problems)


def write(environment: Environment, path: Path) -> None:
    with placing(path) as file:
        file.write(environment.to_json())


def _planned(job: ResolvedJob, given: RankInput) -> dict[str, int]:
    """Bytes of tensors in each process; and parameters that are trained, where the planner knows the architecture."""
    estimate = estimate_of(job, vocab_size=given.vocab_size, added_tokens=len(given.added_token_ids))
    known = not inventory(job.facts).guesses and not any("." in name for name in _named_modules(job.method))
    counted = {"trainable_parameters": estimate.trainable} if known else {}
    return {"memory_bytes": estimate.tensors, **counted}


def _named_modules(method: ResolvedMethod) -> tuple[str, ...]:
    """A name with a dot may stand for a few layers of many, which only the model itself can tell."""
    if isinstance(method, ResolvedFull):
        return ()
    targets = () if method.target_modules == "all-linear" else method.target_modules
    return (*targets, *method.modules_to_save)


def _ran(trainer: RunTrainer) -> dict[str, str | int | float]:
    args, model = trainer.args, trainer.model
    parameters = count_parameters(model)
    world_size = trainer.accelerator.num_processes
    quantized = sum(hasattr(each, "quant_state") for each in model.parameters())
    trained = sorted({str(each.dtype).removeprefix("torch.") for each in model.parameters() if each.requires_grad})
    return {
        "world_size": world_size,
        "rows_per_step": args.per_device_train_batch_size * args.gradient_accumulation_steps * world_size,
        "packing": _switch(SEQ_LENGTHS in trainer.train_dataset.column_names),
        "precision": "bf16" if trainer.accelerator.mixed_precision == "bf16" else "fp32",
        "gradient_checkpointing": _switch(
            any(getattr(each, "gradient_checkpointing", False) for each in model.modules())
        ),
        "attention": str(model.config._attn_implementation),
        "trainable_parameters": parameters.trainable,
        "total_parameters": parameters.total,
        "trained_dtype": ", ".join(trained),
        "quantized": "4 bit" if quantized else "no",
        "quantized_modules": quantized,
        "optimizer": type(getattr(trainer.optimizer, "optimizer", trainer.optimizer)).__name__,
        "sharding": _sharding(trainer.zero_stage),
        "distributed": str(trainer.accelerator.distributed_type.value),
        "train_rows": len(trainer.train_dataset),
        "held_out_rows": 0 if trainer.eval_dataset is None else len(trainer.eval_dataset),
        "steps": trainer.state.max_steps,
        "threads": torch.get_num_threads(),
    }


def _sharding(zero_stage: int) -> str:
    return f"ZeRO-{zero_stage}" if zero_stage else "none"


def _switch(on: bool) -> str:
    return "on" if on else "off"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "unknown"  # run from a source tree that was never installed
    return versions
