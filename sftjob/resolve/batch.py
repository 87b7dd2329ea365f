"""How the rows of a step are divided among processes and micro-batches."""

from typing import Final

from sftjob.errors import SpecError
from sftjob.spec import Training

_MICRO_BATCH: Final = 8
"""Rows a process takes at once where nothing else is said, and at most where `train_batch_size` is."""


def batch_of(training: Training, world_size: int) -> tuple[int, int]:
    """Rows a process takes at once, and micro-batches to a step.

    Raises:
        SpecError: the rows of a step cannot be divided evenly.
    """
    micro, steps, batch = (
        training.per_device_train_batch_size,
        training.gradient_accumulation_steps,
        training.train_batch_size,
    )
    if batch is None:
        return micro or _MICRO_BATCH, steps or 1
    known = micro or steps or 1
    if batch % (known * world_size):
        raise SpecError(
            f"{batch} rows a step cannot be divided among {world_size} processes"
            + (f" in micro-batches of {micro}" if micro else f" in {steps} steps" if steps else ""),
            field="training.train_batch_size",
            hint=f"use a multiple of {known * world_size}",
        )
    share = batch // (known * world_size)
    if micro:
        return micro, share
    if steps:
        return share, steps
    micro = max(size for size in range(1, _MICRO_BATCH + 1) if share % size == 0)
    return micro, share // micro
