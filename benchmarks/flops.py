"""Model FLOPs of training one token. Pure: counts in, a number out.

Matrix products count 2 FLOPs a weight and token in each of the forward pass, the gradient of inputs and the gradient of
weights; frozen weights have no gradient. Attention is causal and stays inside a document. What is computed again
(gradient checkpointing), dequantisation and padding are no model work and do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """Of a decoder."""

    linear: int
    """Weights of all linear layers but the head."""
    head: int
    """hidden times vocabulary."""
    layers: int
    width: int
    """Query heads times their dimension."""
    adapters: int = 0
    """Weights of LoRA matrices; 0 for full fine-tuning."""


def flops_per_token(counts: Counts, lengths: Sequence[int], *, trained_share: float = 1.0) -> float:
    """FLOPs of one optimizer step, per token that is no padding.

    Args:
        counts: of the model.
        lengths: tokens of each document.
        trained_share: of the tokens that have a label: the head computes no others.
    """
    weights = counts.linear + counts.head * trained_share
    attention = 3 * 2 * counts.layers * counts.width * sum(each**2 for each in lengths) / sum(lengths)
    if counts.adapters:
        return 4 * weights + attention + 6 * counts.adapters
    return 6 * weights + attention
