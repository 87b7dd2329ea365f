"""Memory of one process, from a model's shape: every tensor that training allocates, by name and by moment.

Any of a few moments can be the worst: the loss, when all activations are alive; the backward pass, when gradients take
their place; the update, when optimizer states join. Each is a sum of named components, and the largest sum is the peak.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Protocol

from sftjob.plan.activations import activations, numbers
from sftjob.plan.facts import ModelFacts
from sftjob.plan.inventory import complete, inventory
from sftjob.plan.tensors import Job, host, moments
from sftjob.plan.trainable import trainable
from sftjob.resolved import ResolvedFull, ResolvedLaunch, ResolvedMethod, ResolvedTraining

MIB: Final = 2**20
GIB: Final = 2**30
CONTEXT: Final = 768 * MIB
"""CUDA context with the kernels of PyTorch and cuBLAS's workspace. This and the next two are assumed, not measured."""
COMMUNICATION: Final = 512 * MIB
"""NCCL's buffers, where there are several processes."""
FRAGMENTATION: Final = 0.05
"""Of the tensors' bytes: what the caching allocator holds and cannot use."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes of one process."""

    moments: Mapping[str, Mapping[str, int]]
    """Moment → component → bytes of tensors."""
    on_gpu: bool
    processes: int
    host: Mapping[str, int] = field(default_factory=dict)
    """Component → bytes in the node's memory, for each process."""
    trainable: int
    parameters: int

    @cached_property
    def moment(self) -> str:
        """When the peak is."""
        return max(self.moments, key=lambda name: sum(self.moments[name].values()))

    @property
    def components(self) -> Mapping[str, int]:
        """Of the peak."""
        return self.moments[self.moment]

    @property
    def tensors(self) -> int:
        """Bytes of all tensors at the peak."""
        return sum(self.components.values())

    @property
    def overhead(self) -> Mapping[str, int]:
        """What a GPU holds beside tensors."""
        if not self.on_gpu:
            return {}
        communication = {"communication": COMMUNICATION} if self.processes > 1 else {}
        return {"CUDA context": CONTEXT, **communication, "fragmentation": int(self.tensors * FRAGMENTATION)}

    @property
    def needed(self) -> int:
        """Bytes that a GPU must have."""
        return self.tensors + sum(self.overhead.values())


class Resolved(Protocol):
    """What `resolve` returns, as far as memory depends on it."""

    @property
    def facts(self) -> ModelFacts: ...
    @property
    def method(self) -> ResolvedMethod: ...
    @property
    def training(self) -> ResolvedTraining: ...
    @property
    def launch(self) -> ResolvedLaunch: ...


def estimate(
    facts: ModelFacts,
    method: ResolvedMethod,
    training: ResolvedTraining,
    launch: ResolvedLaunch,
    *,
    vocab_size: int = 0,
    added_tokens: int = 0,
) -> Estimate:
    """What one process needs at its worst moment.

    Args:
        facts: of the model's config.
        method: what is trained.
        training: lengths, batches, precision.
        launch: processes, device and strategy.
        vocab_size: rows of the embedding where the tokenizer needs more than the model has.
        added_tokens: tokens that the model has never seen.
    """
    shape, parts = complete(facts), inventory(facts, vocab_size=vocab_size)
    job = Job(
        shape=shape,
        parts=parts,
        method=method,
        training=training,
        launch=launch,
        types=numbers(method, training, launch),
        trained=trainable(parts, method, added_tokens=added_tokens),
        saved=activations(shape, parts, method, training, launch),
        added_tokens=added_tokens,
    )
    return Estimate(
        moments=moments(job),
        on_gpu=launch.device == "cuda",
        processes=launch.world_size,
        host=host(job),
        trainable=job.trained.total,
        parameters=parts.total + (0 if isinstance(method, ResolvedFull) else job.trained.total),
    )


def estimate_of(job: Resolved, *, vocab_size: int = 0, added_tokens: int = 0) -> Estimate:
    """`estimate` of a resolved job."""
    return estimate(job.facts, job.method, job.training, job.launch, vocab_size=vocab_size, added_tokens=added_tokens)
