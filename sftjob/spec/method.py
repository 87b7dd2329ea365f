"""Fine-tuning methods as a person writes them, and what each method allows as data, without torch.

A new method is a class here, an entry in `METHOD_RULES` and a module in `sftjob.methods`; a test compares the three.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from sftjob.spec.launch import Strategy
from sftjob.spec.types import SpecModel

Names = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(min_length=1)]


class Full(SpecModel):
    """All weights are trained."""

    type: Literal["full"]


class _Adapters(SpecModel):
    r: int | None = Field(default=None, ge=1, le=1024)
    """Rank of the adapters."""
    lora_alpha: int | None = Field(default=None, ge=1)
    """Adapters are scaled by `lora_alpha / r`; by `lora_alpha / sqrt(r)` with `use_rslora`."""
    lora_dropout: float | None = Field(default=None, ge=0, lt=1)
    target_modules: Literal["all-linear"] | Names | None = None
    """Modules that get an adapter: every linear layer but the head, or names such as `q_proj`."""
    modules_to_save: Names | None = None
    """Modules that are trained whole beside the adapters and exported with them: `embed_tokens`, `lm_head`, norms."""
    use_rslora: bool | None = None
    """Scale by the square root of the rank, which keeps large ranks learning (https://arxiv.org/abs/2312.03732)."""
    use_dora: bool | None = None
    """Train each weight's magnitude apart from its direction (https://arxiv.org/abs/2402.09353); slower."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        targets = () if self.target_modules in (None, "all-linear") else self.target_modules
        if both := sorted(set(targets or ()) & set(self.modules_to_save or ())):
            raise ValueError(
                f"`{both[0]}` is in `target_modules` and in `modules_to_save`; a module has an adapter or is trained "
                "whole: keep it in one of them"
            )
        return self


class Lora(_Adapters):
    """Low-rank adapters are trained over a frozen base (https://arxiv.org/abs/2106.09685)."""

    type: Literal["lora"]


class Qlora(_Adapters):
    """Low-rank adapters over a base that is held in four bits (https://arxiv.org/abs/2305.14314)."""

    type: Literal["qlora"]
    bnb_4bit_quant_type: Literal["nf4", "fp4"] | None = None
    """How four bits stand for a weight: NormalFloat, which suits weights that are normally distributed, or floats."""
    bnb_4bit_use_double_quant: bool | None = None
    """Quantise the scales of the blocks as well, which saves 0.37 bits a weight."""
    bnb_4bit_quant_storage: Literal["uint8", "bf16", "fp32"] | None = None
    """Type of the tensors that hold the four-bit weights; ZeRO-3 can only share out the type of the other weights."""


Method = Annotated[Full | Lora | Qlora, Field(discriminator="type")]


@dataclass(frozen=True, kw_only=True)
class MethodRule:
    """What a method allows, so that validation and planning need no torch."""

    strategies: frozenset[Strategy]
    adapter: bool
    """The export is an adapter over the base model."""
    learning_rate: float
    """Default peak learning rate, with its source in `docs/spec.md`."""
    experts: bool
    """Trains mixtures whose experts are 3-D parameters."""


_ALL: Final[frozenset[Strategy]] = frozenset({"single", "ddp", "zero1", "zero2", "zero3"})

METHOD_RULES: Final[dict[str, MethodRule]] = {
    "full": MethodRule(strategies=_ALL, adapter=False, learning_rate=2e-5, experts=True),
    "lora": MethodRule(strategies=_ALL, adapter=True, learning_rate=2e-4, experts=True),
    "qlora": MethodRule(strategies=_ALL, adapter=True, learning_rate=2e-4, experts=False),
}
