"""Hyperparameters."""

from typing import Literal, Self

from pydantic import Field, model_validator

from sftjob.spec.launch import PositiveInt
from sftjob.spec.types import SpecModel

Optimizer = Literal["adamw_torch_fused", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"]


class Training(SpecModel):
    """Hyperparameters under the names that transformers and TRL give them. What is left out is filled by `resolve`."""

    num_train_epochs: float | None = Field(default=None, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; instead of `num_train_epochs`."""
    optim: Optimizer | None = None
    """AdamW; in 8 bits its states take a quarter, paged they leave a full GPU for the node's memory. Both on GPUs."""
    learning_rate: float | None = Field(default=None, gt=0, lt=1e3)
    lr_scheduler_type: (
        Literal["linear", "cosine", "cosine_with_min_lr", "constant", "constant_with_warmup", "inverse_sqrt"] | None
    ) = None
    min_lr_rate: float | None = Field(default=None, gt=0, lt=1)
    """Share of the learning rate at which `cosine_with_min_lr` ends."""
    warmup_steps: float | None = Field(default=None, ge=0)
    """Steps, or below 1 the share of all steps, over which the learning rate rises."""
    weight_decay: float | None = Field(default=None, ge=0)
    adam_beta1: float | None = Field(default=None, ge=0, lt=1)
    adam_beta2: float | None = Field(default=None, ge=0, lt=1)
    adam_epsilon: float | None = Field(default=None, gt=0, lt=1)
    max_grad_norm: float | None = Field(default=None, gt=0)
    neftune_noise_alpha: float | None = Field(default=None, gt=0, le=100)
    """Noise on the embeddings while training, against overfitting (https://arxiv.org/abs/2310.05914)."""
    train_batch_size: PositiveInt | None = None
    """Rows of an optimizer step, all processes. The planner divides it into micro-batches that fit."""
    per_device_train_batch_size: PositiveInt | None = None
    """Rows a process takes at once: the micro-batch."""
    gradient_accumulation_steps: PositiveInt | None = None
    per_device_eval_batch_size: PositiveInt | None = None
    max_length: int | None = Field(default=None, ge=2)
    """Tokens of a row, and of a pack; longer rows are treated as `data.overlong` says, and counted."""
    packing: bool | None = None
    """Put several rows into one of `max_length` tokens, each with positions and attention of its own."""
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    precision: Literal["bf16", "fp32"] | None = None
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, a third to a half more time. The planner turns it on
    where nothing else fits."""
    logging_steps: PositiveInt | None = None
    save_steps: PositiveInt | None = None
    """Steps between checkpoints."""
    save_total_limit: int | None = Field(default=None, ge=2)
    """Committed checkpoints that are kept; older ones are deleted."""
    eval_steps: PositiveInt | None = None
    """Steps between losses on the held-out rows."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.num_train_epochs is not None and self.max_steps is not None:
            raise ValueError("`num_train_epochs` and `max_steps` exclude each other; keep one")
        return self

    @model_validator(mode="after")
    def _one_batch(self) -> Self:
        micro, steps, batch = self.per_device_train_batch_size, self.gradient_accumulation_steps, self.train_batch_size
        if batch is not None and micro is not None and steps is not None:
            raise ValueError(
                "`train_batch_size` follows from `per_device_train_batch_size` and `gradient_accumulation_steps`; "
                "leave one of the three out"
            )
        for name, divisor in (("per_device_train_batch_size", micro), ("gradient_accumulation_steps", steps)):
            if batch is not None and divisor is not None and batch % divisor:
                raise ValueError(f"`train_batch_size` {batch} is no multiple of `{name}` {divisor}")
        return self

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if self.min_lr_rate is not None and self.lr_scheduler_type != "cosine_with_min_lr":
            raise ValueError(
                "`min_lr_rate` is for `lr_scheduler_type: cosine_with_min_lr`; write that, or leave it out"
            )
        return self
