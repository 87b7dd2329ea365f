"""Floating-point operations of training: what the model asks for, and what recomputing adds.

Matrix products only: 2 operations a weight and token forward, 2 for the gradient of the input, 2 for that of a weight
that is trained; attention is causal. Decoding four bits is not the model's work and does not count.
"""

from dataclasses import dataclass
from typing import Final

from sftjob.plan.facts import ModelFacts
from sftjob.plan.inventory import complete, inventory
from sftjob.plan.trainable import trainable
from sftjob.resolved import ResolvedFull, ResolvedMethod

EFFICIENCY: Final = (0.30, 0.45)
"""Share of the data sheet's bf16 rate that public fine-tuning runs reach on Hopper and Ampere; see docs/planning.md."""


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Of one token."""

    model: float
    """What the model itself asks for, forward and backward."""
    recomputed: float
    """What gradient checkpointing computes a second time."""


def flops_per_token(facts: ModelFacts, method: ResolvedMethod, *, length: int, checkpointing: bool) -> Flops:
    """Counts a token's share of a step.

    Args:
        facts: of the model.
        method: frozen weights need no gradients of their own.
        length: tokens of a row; each attends to half of them on average.
        checkpointing: layers are computed twice.
    """
    shape, parts = complete(facts), inventory(facts)
    head = parts.hidden_size * parts.vocab_size
    attention = 2.0 * shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim * length
    if isinstance(method, ResolvedFull):
        model = 6.0 * (parts.active + head) + 3 * attention
    else:
        model = 4.0 * (parts.active + head) + 3 * attention + 6.0 * trainable(parts, method).adapters
    return Flops(model=model, recomputed=(2.0 * parts.active + attention) if checkpointing else 0.0)
