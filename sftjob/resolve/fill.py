"""Defaults of training, each with its source in `docs/spec.md`."""

import math
from typing import Any, Final, Literal, TypeVar

from sftjob.errors import SpecError
from sftjob.plan import ModelFacts, choose
from sftjob.resolve.deepspeed import deepspeed_config
from sftjob.resolve.fits import check_combination
from sftjob.resolve.job import ResolvedJob
from sftjob.resolved import (
    ResolvedExport,
    ResolvedFull,
    ResolvedLaunch,
    ResolvedLora,
    ResolvedMethod,
    ResolvedQlora,
    ResolvedTraining,
)
from sftjob.spec import METHOD_RULES, Export, Full, JobSpec, Launch, Lora, Qlora, Strategy, Training, run_id

T = TypeVar("T")
MAX_LENGTH_DEFAULT: Final = 1024
"""Tokens; the TRL default (https://huggingface.co/docs/trl/sft_trainer), cut to what the model takes."""
_MIN_LR_RATE: Final = 0.1


def resolve(spec: JobSpec, facts: ModelFacts) -> ResolvedJob:
    """Fills every default.

    Raises:
        SpecError: values that cannot fit together or that the model does not allow; `field` names the place.
    """
    return resolve_with_reasons(spec, facts)[0]


def resolve_with_reasons(spec: JobSpec, facts: ModelFacts) -> tuple[ResolvedJob, tuple[str, ...]]:
    """The same, and why the planner chose what it chose, for people to read."""
    rule = METHOD_RULES[spec.method.type]
    drafted = _launch(spec.launch)
    draft = _training(spec.training, facts, drafted, learning_rate=rule.learning_rate)
    drafted_method = _method(spec.method, drafted, draft)
    # What cannot work at all is told before what does not fit.
    check_combination(facts, drafted_method, draft, drafted, spec.export)
    choice = choose(spec, facts, drafted_method, draft, drafted)
    launch, training = choice.launch, choice.training
    method = _method(spec.method, launch, training)
    check_combination(facts, method, training, launch, spec.export)
    job = ResolvedJob(
        run_id=run_id(spec),
        name=spec.name,
        model=spec.model,
        facts=facts,
        data=spec.data,
        method=method,
        training=training,
        launch=launch.model_copy(update={"deepspeed": deepspeed_config(training, launch, spec.launch.deepspeed or {})}),
    )
    return job, choice.reasons


def resolve_export(export: Export) -> ResolvedExport:
    """Of every attempt's own spec, unlike the rest: another tolerance needs no other training."""
    filled = ResolvedExport()
    return ResolvedExport(
        merge=_or(export.merge, filled.merge), merge_tolerance=_or(export.merge_tolerance, filled.merge_tolerance)
    )


def max_length_of(asked: int | None, facts: ModelFacts) -> int:
    """Tokens of a row.

    Raises:
        SpecError: more are asked for than the model takes.
    """
    limit = facts.max_position_embeddings or MAX_LENGTH_DEFAULT
    max_length = _or(asked, min(MAX_LENGTH_DEFAULT, limit))
    if max_length > (facts.max_position_embeddings or math.inf):
        raise SpecError(
            f"{max_length} tokens are more than the model's {limit} (max_position_embeddings)",
            field="training.max_length",
            hint=f"use at most {limit}",
        )
    return max_length


def _launch(launch: Launch) -> ResolvedLaunch:
    """As far as memory does not decide."""
    automatic: Strategy = "ddp" if launch.processes > 1 else "single"
    return ResolvedLaunch(
        nodes=launch.nodes,
        processes_per_node=launch.local_processes,
        device="cuda" if launch.gpus_per_node else "cpu",
        gpu=launch.gpu if launch.gpus_per_node else None,
        strategy=automatic if launch.strategy == "auto" else launch.strategy,
        offload_optimizer=_or(launch.offload_optimizer, False),
        offload_param=_or(launch.offload_param, False),
        # The user's keys, until the configuration is whole: buffers of another size need other memory.
        deepspeed=launch.deepspeed,
    )


def _method(method: Full | Lora | Qlora, launch: ResolvedLaunch, training: ResolvedTraining) -> ResolvedMethod:
    if isinstance(method, Full):
        return ResolvedFull()
    r = _or(method.r, 16)
    adapters: dict[str, Any] = {
        "r": r,
        "lora_alpha": _or(method.lora_alpha, 2 * r),
        "lora_dropout": _or(method.lora_dropout, 0.0),
        "target_modules": _or(method.target_modules, "all-linear"),
        "modules_to_save": _or(method.modules_to_save, ()),
        "use_rslora": _or(method.use_rslora, False),
        "use_dora": _or(method.use_dora, False),
    }
    if isinstance(method, Lora):
        return ResolvedLora(**adapters)
    # ZeRO-3 shares out tensors of one type: https://huggingface.co/docs/peft/accelerate/deepspeed
    storage: Literal["uint8", "bf16", "fp32"] = training.precision if launch.zero_stage == 3 else "uint8"
    return ResolvedQlora(
        **adapters,
        bnb_4bit_quant_type=_or(method.bnb_4bit_quant_type, "nf4"),
        bnb_4bit_use_double_quant=_or(method.bnb_4bit_use_double_quant, True),
        bnb_4bit_quant_storage=_or(method.bnb_4bit_quant_storage, storage),
    )


def _training(
    training: Training, facts: ModelFacts, launch: ResolvedLaunch, *, learning_rate: float
) -> ResolvedTraining:
    """As far as memory does not decide."""
    return ResolvedTraining(
        num_train_epochs=_or(training.num_train_epochs, 3.0),
        max_steps=_or(training.max_steps, -1),
        optim=_or(training.optim, "adamw_torch_fused"),
        learning_rate=_or(training.learning_rate, learning_rate),
        lr_scheduler_type=_or(training.lr_scheduler_type, "cosine"),
        min_lr_rate=_or(training.min_lr_rate, _MIN_LR_RATE),
        warmup_steps=_or(training.warmup_steps, 0.03),
        weight_decay=_or(training.weight_decay, 0.0),
        adam_beta1=_or(training.adam_beta1, 0.9),
        adam_beta2=_or(training.adam_beta2, 0.999),
        adam_epsilon=_or(training.adam_epsilon, 1e-8),
        max_grad_norm=_or(training.max_grad_norm, 1.0),
        neftune_noise_alpha=_or(training.neftune_noise_alpha, 0.0),
        # These three and checkpointing are the planner's to choose.
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        per_device_eval_batch_size=1,
        max_length=max_length_of(training.max_length, facts),
        packing=_or(training.packing, False),
        seed=_or(training.seed, 42),
        precision=_or(training.precision, "bf16" if launch.device == "cuda" else "fp32"),
        gradient_checkpointing=_or(training.gradient_checkpointing, False),
        logging_steps=_or(training.logging_steps, 10),
        save_steps=_or(training.save_steps, 100),
        save_total_limit=_or(training.save_total_limit, 2),
        eval_steps=_or(training.eval_steps, 100),
    )


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
