"""Ranks under a count of all tensors' bytes: each writes its peak beside its result.

    python -m tests.train.tracked_worker '[["<work folder>", <port>], …]'

A process imports once and forks for every run, since importing takes longer than these runs do.
"""

import json
import os
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sftjob.train.workdir import WorkDir


class TensorBytes(TorchDispatchMode):
    """Bytes of every storage that an operation has read or made, until it is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._see(tensor)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._see(tensor)
        self.peak = max(self.peak, self.now)
        return result

    def _see(self, tensor: torch.Tensor) -> None:
        if tensor.device.type == "meta":
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            weakref.finalize(storage, self._forget, key).atexit = False
        self.now += size - self._known.get(key, 0)
        self._known[key] = size

    def _forget(self, key: int) -> None:
        self.now -= self._known.pop(key)


def peak_of(work: WorkDir, rank: int) -> int:
    """What a rank has written."""
    return int((work.root / f"peak-{rank}").read_text())


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for each in tree.values():
            yield from _tensors(each)
    elif isinstance(tree, list | tuple):
        for each in tree:
            yield from _tensors(each)


def _run(root: Path, port: int) -> int:
    from sftjob.train.worker import run_rank  # noqa: PLC0415

    os.environ["MASTER_PORT"] = str(port)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    with TensorBytes() as count:
        result = run_rank(WorkDir(root), rank, rank, world_size)
    (root / f"peak-{rank}").write_text(str(count.peak))
    return result.exit_code


def _main(runs: list[tuple[str, int]]) -> None:
    import deepspeed  # noqa: F401, PLC0415

    import sftjob.train.rank  # noqa: F401, PLC0415

    for root, port in runs:
        child = os.fork()
        if not child:
            code = 1
            try:
                code = _run(Path(root), port)
            finally:
                sys.stdout.flush()
                os._exit(code)
        os.waitpid(child, 0)


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
