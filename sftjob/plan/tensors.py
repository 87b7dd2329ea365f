"""Every tensor that one process allocates while it trains, by name and by moment; all sizes are bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sftjob.plan.activations import BF16, FP32, Activations, Numbers
from sftjob.plan.facts import ModelFacts
from sftjob.plan.inventory import Inventory
from sftjob.plan.trainable import Trainable
from sftjob.resolved import ResolvedFull, ResolvedLaunch, ResolvedMethod, ResolvedQlora, ResolvedTraining

_LOGITS_COPIES: Final = 3
"""In float32: log-probabilities, their gradient, and the gradient of the logits."""
_BLOCK: Final = 64
_NESTED_BLOCK: Final = 256
"""Weights that share a scale in four bits, and scales that share one: bitsandbytes' own numbers."""
_STATE_BLOCK: Final = 256
ZERO_DEFAULTS: Final[Mapping[str, int]] = {
    "reduce_bucket_size": 50_000_000,
    "stage3_prefetch_bucket_size": 50_000_000,
    "stage3_max_live_parameters": 1_000_000_000,
}
"""Elements, as `resolve.deepspeed` writes them; there before the configuration is made."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that memory depends on."""

    shape: ModelFacts
    parts: Inventory
    method: ResolvedMethod
    training: ResolvedTraining
    launch: ResolvedLaunch
    types: Numbers
    trained: Trainable
    saved: Activations
    added_tokens: int

    @property
    def tokens(self) -> int:
        return self.training.per_device_train_batch_size * self.training.max_length

    @property
    def stage(self) -> int:
        return self.launch.zero_stage

    @property
    def gradients(self) -> int:
        """Bytes of all gradients."""
        return self.trained.total * self.types.trained

    @property
    def moves_gradients(self) -> bool:
        """A gradient goes to the node's memory as soon as it is reduced, from where the optimizer takes it."""
        return self.launch.offload_optimizer and self.stage > 1

    def share(self, size: int, from_stage: int) -> int:
        """Bytes of this process where a stage shares out."""
        return -(-size // self.launch.world_size) if self.stage >= from_stage else size


def moments(job: Job) -> dict[str, dict[str, int]]:
    """Moment → component → bytes, of every moment that can be the worst."""
    always = {**_weights(job), **_optimizer(job), **_buffers(job)}
    each = {
        "end of forward": _end_of_forward(job),
        "loss": _loss(job),
        "backward": _backward(job),
        "end of backward": _end_of_backward(job),
        "update": _update(job),
    }
    return {name: _nonzero({**always, **moment}) for name, moment in each.items()}


def host(job: Job) -> dict[str, int]:
    """What lies in the node's memory, for this process."""
    moved: dict[str, int] = {}
    if job.launch.offload_optimizer:
        moved["optimizer states"] = job.share(_states(job), 1)
        moved["float32 weights and gradients"] = job.share(2 * FP32 * job.trained.total, 1)
        # Gradients as they are accumulated and, but for ZeRO-3, updated weights on their way back.
        moved["buffers"] = job.share(job.gradients * (1 if job.stage == 3 else 2), 1)
    elif job.training.optim.startswith("paged"):
        moved["optimizer states"] = _states(job)
    if job.launch.offload_param:
        moved["weights"] = job.share(job.parts.total * job.types.base, 3)
    return _nonzero(moved)


def _weights(job: Job) -> dict[str, int]:
    whole = job.parts.total * job.types.base
    quantised: dict[str, int] = {}
    if isinstance(job.method, ResolvedQlora):
        weights = job.parts.linear_weights
        whole -= weights * job.types.base
        blocks = -(-weights // _BLOCK)
        scales = blocks + FP32 * -(-blocks // _NESTED_BLOCK) if job.method.bnb_4bit_use_double_quant else FP32 * blocks
        quantised = {"weights in 4 bits": job.share(weights // 2, 3), "scales of 4 bits": scales}
    if job.launch.offload_param:
        whole, quantised = 0, {}
    trained = job.trained.total if not isinstance(job.method, ResolvedFull) else 0
    return {
        "weights": job.share(whole, 3),
        **quantised,
        "adapters": job.share(trained * job.types.trained, 3),
        "gathered weights": _gathered(job),
    }


def _gathered(job: Job) -> int:
    """Weights that ZeRO-3 keeps whole for a while: up to a number of them, and one layer in any case."""
    if job.stage < 3:
        return 0
    live = _zero(job, "stage3_max_live_parameters") + _zero(job, "stage3_prefetch_bucket_size")
    if not isinstance(job.method, ResolvedQlora):
        return min(job.parts.total, live) * job.types.base
    whole = job.parts.total - job.parts.linear_weights
    return min(whole, live) * job.types.base + min(job.parts.linear_weights, live) // 2


def _optimizer(job: Job) -> dict[str, int]:
    """AdamW's two moments, and float32 copies of shorter weights."""
    if job.launch.offload_optimizer or job.training.optim.startswith("paged"):
        return {}
    return {
        "optimizer states": job.share(_states(job), 1),
        "float32 copies of weights": job.share(job.trained.total * FP32, 1) if job.stage else 0,
    }


def _states(job: Job) -> int:
    if not job.training.optim.endswith("8bit"):
        return 2 * FP32 * job.trained.total
    # Trainer keeps an embedding's states in 32 bits (transformers 5.23).
    rounded = job.trained.total - job.trained.embedding
    return 2 * rounded + 2 * FP32 * -(-rounded // _STATE_BLOCK) + 2 * FP32 * job.trained.embedding


def _buffers(job: Job) -> dict[str, int]:
    """Gradients on their way between processes."""
    if job.launch.strategy == "ddp" and job.launch.world_size > 1:
        return {"gradient buckets": job.trained.total * job.types.trained}
    return {}


def _end_of_forward(job: Job) -> dict[str, int]:
    """Autocast keeps its copies of weights until the model returns, also where activations are recomputed."""
    return {
        "casts of weights": _casts(job),
        "activations": _kept(job) + job.saved.ends * job.tokens,
        "logits": job.types.compute * job.parts.vocab_size * job.tokens,
        "gradients": _earlier(job),
        "reduction buckets": _bucket(job),
    }


def _loss(job: Job) -> dict[str, int]:
    return {
        "casts of weights": _head_cast(job) if job.training.gradient_checkpointing else _casts(job),
        "head with new rows": job.parts.embedding * job.types.base if job.trained.rows else 0,
        "activations": _kept(job) + job.saved.ends * job.tokens,
        "logits": _LOGITS_COPIES * FP32 * job.parts.vocab_size * job.tokens,
        "gradients": _earlier(job),
        "reduction buckets": _bucket(job),
    }


def _backward(job: Job) -> dict[str, int]:
    recomputes = job.training.gradient_checkpointing
    return {
        "activations": _kept(job) + (_one(job) if recomputes else 0),
        "casts of weights": 0 if recomputes else _casts(job),
        "temporary": job.saved.backward * job.tokens + _largest(job),
        "gradients": _earlier(job),
        "reduction buckets": _bucket(job),
    }


def _end_of_backward(job: Job) -> dict[str, int]:
    return {
        "activations": _one(job),
        "temporary": job.saved.backward * job.tokens + _largest(job),
        "gradients": 0 if job.moves_gradients else job.share(job.gradients - _first_layer(job), 2),
        "reduction buckets": _bucket(job),
    }


def _update(job: Job) -> dict[str, int]:
    return {
        "gradients": 0 if job.moves_gradients else job.share(job.gradients, 2),
        "reduction buckets": _bucket(job) if job.stage == 3 else 0,
        "float32 gradients": 0
        if job.launch.offload_optimizer or not job.stage
        else job.share(job.trained.total * FP32, 1),
    }


def _kept(job: Job) -> int:
    """Bytes of what layers keep until their backward pass."""
    pairs = job.tokens * job.training.max_length
    if job.training.gradient_checkpointing:
        return job.saved.inputs * job.tokens + job.saved.mask * pairs
    scores = job.shape.num_hidden_layers * job.saved.scores
    return job.saved.layers * job.tokens + (job.saved.masks + scores) * pairs


def _one(job: Job) -> int:
    """Bytes of what the largest layer keeps, with its attention's scores and their gradients."""
    pairs = job.tokens * job.training.max_length
    size = job.saved.layer * job.tokens + (job.saved.mask + 3 * job.saved.scores) * pairs
    if job.training.gradient_checkpointing and job.types.stream == FP32:
        size -= job.shape.hidden_size * FP32 * job.tokens  # its input, which its first norm keeps, is kept already
    return size


def _earlier(job: Job) -> int:
    """Bytes of gradients that are there before a backward pass: of micro-batches before, or a buffer for them."""
    if job.moves_gradients:
        return 0
    return job.share(job.gradients, 2) if job.training.gradient_accumulation_steps > 1 or job.stage == 3 else 0


def _first_layer(job: Job) -> int:
    """Bytes of gradients that come last: those of the first layer and of the embedding."""
    if not isinstance(job.method, ResolvedFull):
        return job.trained.adapters // job.shape.num_hidden_layers * job.types.trained
    return (job.parts.decoder // job.shape.num_hidden_layers + job.parts.embedding) * job.types.trained


def _casts(job: Job) -> int:
    """bf16 copies that autocast makes of float32 weights, alive until their layer's backward pass."""
    if not job.types.autocast:
        return 0
    if not isinstance(job.method, ResolvedFull):
        return BF16 * job.trained.adapters
    return BF16 * (job.parts.decoder + job.parts.embedding)


def _head_cast(job: Job) -> int:
    return BF16 * job.parts.embedding if job.types.autocast and isinstance(job.method, ResolvedFull) else 0


def _largest(job: Job) -> int:
    """The largest matrix that a backward pass makes for a moment: a gradient, or a weight out of its four bits."""
    layers = job.parts.linears
    matrix = max((each.inputs * each.outputs for each in layers), default=0)
    experts = max((each.parameters // each.count for each in job.parts.experts), default=0)
    if job.moves_gradients:
        return max(matrix, experts, job.parts.embedding) * job.types.trained * isinstance(job.method, ResolvedFull)
    if isinstance(job.method, ResolvedFull):
        # Without earlier gradients a new one is itself the gradient.
        accumulates = job.training.gradient_accumulation_steps > 1
        return max(matrix, experts, job.parts.embedding) * job.types.trained * accumulates
    return matrix * job.types.base if isinstance(job.method, ResolvedQlora) else 0


def _bucket(job: Job) -> int:
    if not job.stage:
        return 0
    return _zero(job, "reduce_bucket_size") * job.types.trained * (2 if job.launch.device == "cuda" else 1)


def _zero(job: Job, key: str) -> int:
    options: Mapping[str, Any] = (job.launch.deepspeed or {}).get("zero_optimization", {})
    value = options.get(key, ZERO_DEFAULTS[key])
    return int(value) if isinstance(value, int | float) else ZERO_DEFAULTS[key]


def _nonzero(components: Mapping[str, int]) -> dict[str, int]:
    return {name: size for name, size in components.items() if size}
