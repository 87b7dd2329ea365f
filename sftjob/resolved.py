"""The blocks of a resolved job: every default is filled, nothing optional is left.

New fields have a default, so that the spec.json of an older version can be read.
"""

from typing import Any, Literal

from sftjob.records import Stored
from sftjob.spec import Optimizer, Strategy


class _ResolvedAdapters(Stored):
    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: Literal["all-linear"] | tuple[str, ...]
    modules_to_save: tuple[str, ...] = ()
    use_rslora: bool = False
    use_dora: bool = False


class ResolvedLora(_ResolvedAdapters):
    type: Literal["lora"] = "lora"


class ResolvedQlora(_ResolvedAdapters):
    type: Literal["qlora"] = "qlora"
    bnb_4bit_quant_type: Literal["nf4", "fp4"]
    bnb_4bit_use_double_quant: bool
    bnb_4bit_quant_storage: Literal["uint8", "bf16", "fp32"] = "uint8"


class ResolvedFull(Stored):
    type: Literal["full"] = "full"


ResolvedMethod = ResolvedFull | ResolvedLora | ResolvedQlora


class ResolvedTraining(Stored):
    num_train_epochs: float
    max_steps: int
    """-1: by epochs."""
    optim: Optimizer = "adamw_torch_fused"
    learning_rate: float
    lr_scheduler_type: str
    min_lr_rate: float = 0.0
    """Share of the learning rate at which `cosine_with_min_lr` ends; unused by the others."""
    warmup_steps: float
    weight_decay: float
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float
    neftune_noise_alpha: float = 0.0
    """0: none."""
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    per_device_eval_batch_size: int
    max_length: int
    packing: bool = False
    seed: int
    precision: Literal["bf16", "fp32"]
    gradient_checkpointing: bool
    logging_steps: int
    save_steps: int
    save_total_limit: int
    eval_steps: int


class ResolvedLaunch(Stored):
    nodes: int
    processes_per_node: int
    device: Literal["cpu", "cuda"]
    gpu: str | None = None
    """Product name; None on a CPU, and where nobody has named it."""
    strategy: Strategy
    offload_optimizer: bool = False
    offload_param: bool = False
    deepspeed: dict[str, Any] | None = None
    """Configuration of DeepSpeed as it gets it; None without ZeRO."""

    @property
    def world_size(self) -> int:
        return self.nodes * self.processes_per_node

    @property
    def zero_stage(self) -> int:
        """0 where DeepSpeed is not used."""
        return int(self.strategy[-1]) if self.strategy.startswith("zero") else 0


class ResolvedExport(Stored):
    merge: bool = False
    merge_tolerance: float = 0.05
    """Largest norm of the difference of two logit vectors, as a share of their own norm: see docs/methods.md."""
