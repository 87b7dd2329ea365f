"""LoRA: low-rank adapters over a frozen base (https://arxiv.org/abs/2106.09685), through PEFT."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from peft import LoraConfig, TaskType, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import PreTrainedModel

from sftjob.errors import ConfigurationError
from sftjob.methods.base import BaseName, FineTuning, Model, Precision, StateDict

ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
ADAPTER: Final = "default"


@dataclass(frozen=True, kw_only=True)
class LoraFineTuning(FineTuning):
    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: Literal["all-linear"] | tuple[str, ...]

    def base_dtype(self, precision: Precision) -> torch.dtype:
        """The base is frozen and may be as short as the precision; the adapters stay in float32."""
        return torch.bfloat16 if precision == "bf16" else torch.float32

    def prepare(self, model: PreTrainedModel, *, base: BaseName, added_token_ids: tuple[int, ...]) -> Model:
        """Adds adapters. Of the embeddings only the added tokens' rows are trained, so that the export stays small."""
        config = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=self.r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=self.target_modules if isinstance(self.target_modules, str) else list(self.target_modules),
            trainable_token_indices=_token_rows(model, added_token_ids),
        )
        try:
            adapted = get_peft_model(model, config)
        except ValueError as error:
            raise ConfigurationError(
                str(error).splitlines()[0],
                field="method.target_modules",
                hint="use `all-linear` or names of the model's linear layers",
            ) from error
        adapted.peft_config[ADAPTER].base_model_name_or_path = base.name
        adapted.peft_config[ADAPTER].revision = base.revision
        return adapted

    def weights(self, model: Model, state_dict: StateDict | None = None) -> dict[str, torch.Tensor]:
        """Adapters and rows of added tokens under the names of the file."""
        return _adapter_weights(model, state_dict)

    def save(self, model: Model, folder: Path, *, state_dict: StateDict | None = None, resumable: bool = False) -> None:
        """adapter_model.safetensors and adapter_config.json.

        PEFT's own `save_pretrained` would also look for the base model's config on the hub, and write a model card.
        """
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.contiguous() for name, tensor in _adapter_weights(model, state_dict).items()}
        save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        config = copy.copy(model.peft_config[ADAPTER])
        config.inference_mode = True
        if isinstance(config.target_modules, set):
            config.target_modules = sorted(config.target_modules)  # PEFT writes a set in another order every time
        config.save_pretrained(folder)


def _adapter_weights(model: Model, state_dict: StateDict | None) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = get_peft_model_state_dict(
        model, state_dict=state_dict, adapter_name=ADAPTER, save_embedding_layers=False
    )
    return weights


def _token_rows(model: PreTrainedModel, token_ids: tuple[int, ...]) -> dict[str, list[int]] | None:
    """Layer name → rows to train: of the embedding, and of the head where it has weights of its own."""
    if not token_ids:
        return None
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    layers = [embedding] if head is None or head.weight is embedding.weight else [embedding, head]
    return {_name_of(model, layer): list(token_ids) for layer in layers}


def _name_of(model: PreTrainedModel, layer: torch.nn.Module) -> str:
    full_name: str = next(name for name, module in model.named_modules() if module is layer)
    return full_name.rpartition(".")[2]
