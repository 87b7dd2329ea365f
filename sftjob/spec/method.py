"""Fine-tuning methods as a person writes them, and what each method allows as data, without torch.

A new method is a class here, an entry in `METHOD_RULES` and a module in `sftjob.methods`; a test compares the three.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import Field

from sftjob.spec.types import SpecModel

Strategy = Literal["single", "ddp"]


class Full(SpecModel):
    """All weights are trained."""

    type: Literal["full"]


class _Adapters(SpecModel):
    r: int | None = Field(default=None, ge=1, le=1024)
    """Rank of the adapters."""
    lora_alpha: int | None = Field(default=None, ge=1)
    """Adapters are scaled by `lora_alpha / r`."""
    lora_dropout: float | None = Field(default=None, ge=0, lt=1)
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Modules that get an adapter: every linear layer but the head, or names such as `q_proj`."""


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


Method = Annotated[Full | Lora | Qlora, Field(discriminator="type")]


@dataclass(frozen=True, kw_only=True)
class MethodRule:
    """What a method allows, so that validation and planning need no torch."""

    strategies: frozenset[Strategy]
    adapter: bool
    """The export is an adapter over the base model."""
    learning_rate: float
    """Default peak learning rate, with its source in `docs/spec.md`."""


METHOD_RULES: Final[dict[str, MethodRule]] = {
    "full": MethodRule(strategies=frozenset({"single", "ddp"}), adapter=False, learning_rate=2e-5),
    "lora": MethodRule(strategies=frozenset({"single", "ddp"}), adapter=True, learning_rate=2e-4),
    "qlora": MethodRule(strategies=frozenset({"single", "ddp"}), adapter=True, learning_rate=2e-4),
}
