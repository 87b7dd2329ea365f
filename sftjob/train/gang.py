"""How ranks agree: sums over small numbers by way of the CPU, beside the accelerator's own communication."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class RankPlace:
    """Which of all processes this one is, as torchrun's environment says."""

    rank: int
    local_rank: int
    world_size: int

    @property
    def first(self) -> bool:
        return self.rank == 0


class Gang:
    """All ranks of an attempt, or this process alone. Make it after torch.distributed is initialised, on all ranks."""

    def __init__(self, place: RankPlace, preempt: Path) -> None:
        """Opens the side channel.

        Args:
            place: this rank.
            preempt: the file whose existence asks this node to save and stop.
        """
        self.place = place
        self._preempt = preempt
        # Never NCCL: no kernel may wait in the device's queue for a peer, and no device memory is taken.
        self._group = dist.new_group(backend="gloo") if place.world_size > 1 else None

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over ranks in float64; every rank gets the same bits."""
        if self._group is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self._group)
        summed: list[float] = total.tolist()
        return summed

    def asked_to_stop(self) -> float:
        """1.0 when this node is asked to save and stop. Peers may not know yet: add it to what is summed."""
        return float(self._preempt.exists())

    def all_asked_to_stop(self) -> bool:
        """True on every rank when any node is asked to save and stop."""
        return self.sum([self.asked_to_stop()])[0] > 0

    def wait(self) -> None:
        """Until every rank is here."""
        if self._group is not None:
            dist.barrier(group=self._group)
