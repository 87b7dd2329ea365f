"""QLoRA: LoRA over a base in four bits (https://arxiv.org/abs/2305.14314), through bitsandbytes."""

from dataclasses import dataclass
from typing import Final, Literal

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from sftjob.errors import ConfigurationError
from sftjob.methods.base import BaseName, Model, Precision
from sftjob.methods.lora import LoraFineTuning
from sftjob.methods.shards import shape_of

_STORAGE: Final = {"uint8": torch.uint8, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True, kw_only=True)
class QloraFineTuning(LoraFineTuning):
    bnb_4bit_quant_type: Literal["nf4", "fp4"]
    bnb_4bit_use_double_quant: bool
    bnb_4bit_quant_storage: Literal["uint8", "bf16", "fp32"] = "uint8"

    def quantization(self, precision: Precision) -> BitsAndBytesConfig:
        """Linear layers in four bits, computed in the precision of the training; embeddings and head stay whole."""
        dtype = self.base_dtype(precision)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=self.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_quant_storage=_STORAGE[self.bnb_4bit_quant_storage],
        )

    def prepare(self, model: PreTrainedModel, *, base: BaseName, added_token_ids: tuple[int, ...]) -> Model:
        """Adds adapters to a model that was loaded with `quantization`.

        Raises:
            ConfigurationError: a layer of the model is none that bitsandbytes quantises.
        """
        # transformers keeps the experts of a mixture in 3-D parameters, and bitsandbytes replaces linear layers alone.
        if whole := next((name for name, each in model.named_parameters() if len(shape_of(each)) == 3), None):
            raise ConfigurationError(
                f"{whole} holds experts, which bitsandbytes does not quantise: most of the model would stay as it is",
                field="method.type",
                hint="use lora",
            )
        return super().prepare(model, base=base, added_token_ids=added_token_ids)
