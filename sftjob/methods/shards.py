"""Weights of which ZeRO-3 keeps a share in every process: their size, and how to see them whole.

Everything here also takes weights that are not shared out, and imports DeepSpeed only for those that are.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer


def is_shared(parameter: torch.Tensor) -> bool:
    """Whether ZeRO-3 has shared the parameter out; its own tensor is empty then."""
    return hasattr(parameter, "ds_id")


def shape_of(parameter: torch.Tensor) -> tuple[int, ...]:
    """Shape of the whole parameter; of a quantised one that of the weights it stands for."""
    state = getattr(parameter, "quant_state", None)
    return tuple(state.shape if state is not None else getattr(parameter, "ds_shape", parameter.shape))


def numel_of(parameter: torch.Tensor) -> int:
    """Weights of the whole parameter, of which a quantised tensor holds several in an element."""
    return math.prod(shape_of(parameter))


@contextmanager
def whole(parameters: Iterable[torch.Tensor], *, change: bool = False) -> Iterator[None]:
    """Makes parameters whole while entered. Every rank must enter, with the same parameters in the same order.

    Args:
        change: the first rank's values are kept at the end, and sent to all others.
    """
    shared = [each for each in parameters if is_shared(each)]
    if not shared:
        yield
        return
    import deepspeed  # noqa: PLC0415 - takes seconds, and most jobs need none of it

    with deepspeed.zero.GatheredParameters(shared, modifier_rank=0 if change else None):
        yield


@contextmanager
def token_rows_on_any_device() -> Iterator[None]:
    """Lets PEFT begin with rows of a shared-out embedding where there is no GPU: its own way asks for one (0.21)."""

    def collect(_self: TrainableTokensLayer, weight: torch.Tensor, rows: list[int], _width: int) -> torch.Tensor:
        with whole([weight]):
            return weight[rows].detach().clone()

    with patch.object(TrainableTokensLayer, "_collect_token_weights", collect):
        yield
