"""JobSpec + ModelFacts → ResolvedJob: every default of training is filled here and nowhere else.

A run resolves once. Its first attempt stores the result as spec.json and later ones read it, so that a newer image with
other defaults continues the same training.
"""

import math
from typing import Final, Literal, TypeVar

from pydantic import Field, ValidationError

from sftjob.errors import ConfigurationError, SpecError
from sftjob.plan import ModelFacts
from sftjob.records import Record, Stored
from sftjob.spec import (
    METHOD_RULES,
    Data,
    Full,
    JobSpec,
    Launch,
    Lora,
    ModelSource,
    Qlora,
    Training,
    run_id,
    sha256_hex,
)

T = TypeVar("T")
RESOLVED_SCHEMA: Final = 1
MAX_LENGTH_DEFAULT: Final = 1024
"""Tokens; the TRL default (https://huggingface.co/docs/trl/sft_trainer), cut to what the model takes."""


class _ResolvedAdapters(Stored):
    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: Literal["all-linear"] | tuple[str, ...]


class ResolvedLora(_ResolvedAdapters):
    type: Literal["lora"] = "lora"


class ResolvedQlora(_ResolvedAdapters):
    type: Literal["qlora"] = "qlora"
    bnb_4bit_quant_type: Literal["nf4", "fp4"]
    bnb_4bit_use_double_quant: bool


class ResolvedFull(Stored):
    type: Literal["full"] = "full"


ResolvedMethod = ResolvedFull | ResolvedLora | ResolvedQlora


class ResolvedTraining(Stored):
    num_train_epochs: float
    max_steps: int
    """-1: by epochs."""
    learning_rate: float
    lr_scheduler_type: str
    warmup_steps: float
    weight_decay: float
    max_grad_norm: float
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    per_device_eval_batch_size: int
    max_length: int
    packing: bool = False
    seed: int
    precision: Literal["bf16", "fp32"]
    gradient_checkpointing: bool
    logging_steps: int
    save_steps: int
    save_total_limit: int
    eval_steps: int


class ResolvedLaunch(Stored):
    nodes: int
    processes_per_node: int
    device: Literal["cpu", "cuda"]
    strategy: Literal["single", "ddp"]

    @property
    def world_size(self) -> int:
        return self.nodes * self.processes_per_node


class ResolvedJob(Record):
    """What runs: nothing optional is left. Stored as spec.json."""

    schema_version: int = RESOLVED_SCHEMA
    run_id: str
    name: str
    model: ModelSource
    facts: ModelFacts
    data: Data
    method: ResolvedMethod = Field(discriminator="type")
    training: ResolvedTraining
    launch: ResolvedLaunch

    @property
    def rows_per_step(self) -> int:
        """Effective batch size: rows that one optimizer step sees, all processes."""
        training = self.training
        return training.per_device_train_batch_size * training.gradient_accumulation_steps * self.launch.world_size

    def sha256(self) -> str:
        """Hash of the stored bytes; every COMMIT carries it."""
        return sha256_hex(self.to_json())


def resolve(spec: JobSpec, facts: ModelFacts) -> ResolvedJob:
    """Fills every default.

    Raises:
        SpecError: values that cannot fit together or that the model does not allow; `field` names the place.
    """
    launch = _launch(spec.launch)
    rule = METHOD_RULES[spec.method.type]
    if launch.strategy not in rule.strategies:
        raise SpecError(
            f"{spec.method.type} does not run under {launch.strategy}",
            field="launch.strategy",
            hint=f"use one of {', '.join(sorted(rule.strategies))}",
        )
    return ResolvedJob(
        run_id=run_id(spec),
        name=spec.name,
        model=spec.model,
        facts=facts,
        data=spec.data,
        method=_method(spec.method),
        training=_training(spec.training, facts, device=launch.device, learning_rate=rule.learning_rate),
        launch=launch,
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


def read_resolved(data: bytes, key: str) -> ResolvedJob:
    """Parses a stored spec.json.

    Raises:
        ConfigurationError: another version wrote what this one cannot honour; the field is named.
    """
    try:
        # First of all, since a newer version may have changed any other field.
        version = Record.model_validate_json(data).schema_version
        if version <= RESOLVED_SCHEMA:
            return ResolvedJob.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(
            first["msg"],
            file=key,
            field=".".join(str(part) for part in first["loc"]),
            hint="continue with the image that started this run, or start another one with --new-run",
        ) from error
    raise ConfigurationError(
        f"written by a newer version (schema {version}, this one reads {RESOLVED_SCHEMA})",
        file=key,
        field="schema_version",
        hint="use the image that started this run",
    )


def _launch(launch: Launch) -> ResolvedLaunch:
    automatic: Literal["single", "ddp"] = "ddp" if launch.processes > 1 else "single"
    return ResolvedLaunch(
        nodes=launch.nodes,
        processes_per_node=launch.local_processes,
        device="cuda" if launch.gpus_per_node else "cpu",
        strategy=automatic if launch.strategy == "auto" else launch.strategy,
    )


def _method(method: Full | Lora | Qlora) -> ResolvedMethod:
    if isinstance(method, Full):
        return ResolvedFull()
    r = _or(method.r, 16)
    lora = ResolvedLora(
        r=r,
        lora_alpha=_or(method.lora_alpha, 2 * r),
        lora_dropout=_or(method.lora_dropout, 0.0),
        target_modules=_or(method.target_modules, "all-linear"),
    )
    if isinstance(method, Lora):
        return lora
    return ResolvedQlora(
        **lora.model_dump(exclude={"type"}),
        bnb_4bit_quant_type=_or(method.bnb_4bit_quant_type, "nf4"),
        bnb_4bit_use_double_quant=_or(method.bnb_4bit_use_double_quant, True),
    )


def _training(
    training: Training, facts: ModelFacts, *, device: Literal["cpu", "cuda"], learning_rate: float
) -> ResolvedTraining:
    batch = _or(training.per_device_train_batch_size, 8)
    return ResolvedTraining(
        num_train_epochs=_or(training.num_train_epochs, 3.0),
        max_steps=_or(training.max_steps, -1),
        learning_rate=_or(training.learning_rate, learning_rate),
        lr_scheduler_type=_or(training.lr_scheduler_type, "cosine"),
        warmup_steps=_or(training.warmup_steps, 0.03),
        weight_decay=_or(training.weight_decay, 0.0),
        max_grad_norm=_or(training.max_grad_norm, 1.0),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=_or(training.gradient_accumulation_steps, 1),
        per_device_eval_batch_size=_or(training.per_device_eval_batch_size, batch),
        max_length=max_length_of(training.max_length, facts),
        packing=_or(training.packing, False),
        seed=_or(training.seed, 42),
        precision=_or(training.precision, "bf16" if device == "cuda" else "fp32"),
        gradient_checkpointing=_or(training.gradient_checkpointing, False),
        logging_steps=_or(training.logging_steps, 10),
        save_steps=_or(training.save_steps, 100),
        save_total_limit=_or(training.save_total_limit, 2),
        eval_steps=_or(training.eval_steps, 100),
    )


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
