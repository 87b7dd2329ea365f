"""What DeepSpeed needs beside its configuration, in the order in which it needs it."""

import logging
from datetime import timedelta
from typing import Final

import torch

from sftjob.methods import Model, Precision
from sftjob.resolved import ResolvedLaunch

_TIMEOUT: Final = timedelta(minutes=30)
"""Of a collective: how long ranks wait for one that still loads or saves."""

_SHARED_MEMORY: Final = "deepspeed_shm_comm"


def join_deepspeed(launch: ResolvedLaunch) -> None:
    """Joins the ranks. Call it before the trainer's arguments are made and the model is loaded.

    Otherwise ZeRO-3 counts one process, and its batch arithmetic fails while the model is loaded (transformers 5.23).
    """
    import deepspeed  # noqa: PLC0415 - takes seconds, and most jobs need none of it

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Otherwise it compiles a reduction of its own on a CPU, on the spot, and ends where there is no compiler. No
    # training uses it, and under torchrun, which sets no LOCAL_SIZE, it crashes (0.19.8).
    deepspeed.ops.__compatible_ops__[_SHARED_MEMORY] = False
    backend = "gloo" if launch.device == "cpu" else "nccl"
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False, timeout=_TIMEOUT)


def zero_dtype(precision: Precision) -> torch.dtype:
    """Dtype of all weights under ZeRO; where it is bf16 the optimizer keeps copies of what is trained in float32."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


@torch.no_grad()
def match_dtypes(model: Model, precision: Precision) -> Model:
    """Gives what is trained the dtype of the other weights: ZeRO-3 exchanges tensors of one dtype alone.

    In place; returns the model.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(zero_dtype(precision))
    return model
