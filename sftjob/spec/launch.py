"""How many processes train, on what, and how they share the work."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from sftjob.spec.types import SpecModel

PositiveInt = Annotated[int, Field(ge=1)]
Strategy = Literal["single", "ddp", "zero1", "zero2", "zero3"]


class Launch(SpecModel):
    """How many processes train, and on what."""

    nodes: int = Field(default=1, ge=1, le=10_000)
    gpus_per_node: int = Field(default=1, ge=0, le=64)
    """0 trains on the CPU. `sftjob run` writes the machine's own number here."""
    gpu: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """GPU product as the node label `nvidia.com/gpu.product` names it, for instance `NVIDIA-H100-80GB-HBM3`."""
    processes_per_node: PositiveInt | None = None
    """Only without GPUs, where it defaults to 1; with GPUs there is one process each."""
    strategy: Literal["auto", "single", "ddp", "zero1", "zero2", "zero3"] = "auto"
    """How processes share the work: `ddp` gives each a whole model; ZeRO shares out optimizer states (`zero1`),
    gradients as well (`zero2`), weights as well (`zero3`). `auto` shares out no more than it must to fit."""
    offload_optimizer: bool | None = None
    """Keep optimizer states in the node's memory; needs ZeRO."""
    offload_param: bool | None = None
    """Keep weights in the node's memory while they are not in use; needs `zero3`."""
    deepspeed: dict[str, Any] | None = None
    """Keys that are put over those of the generated DeepSpeed configuration; `render --resolved` shows the result."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.gpus_per_node and self.processes_per_node not in (None, self.gpus_per_node):
            raise ValueError("`processes_per_node` must equal `gpus_per_node`: one process a GPU; leave it out")
        if self.strategy == "single" and self.processes > 1:
            raise ValueError("`strategy: single` allows one process; write `ddp` or `auto`")
        if self.offload_param and self.strategy != "zero3":
            raise ValueError("`offload_param` needs the shared-out weights of `strategy: zero3`")
        for name in ("offload_optimizer", "deepspeed"):
            if getattr(self, name) and not self.strategy.startswith("zero"):
                raise ValueError(f"`{name}` is for DeepSpeed; write `strategy: zero1`, `zero2` or `zero3`")
        return self

    @property
    def local_processes(self) -> int:
        """Processes on each node."""
        return self.gpus_per_node or self.processes_per_node or 1

    @property
    def processes(self) -> int:
        """Processes on all nodes: the world size."""
        return self.nodes * self.local_processes
