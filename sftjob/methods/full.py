"""Full fine-tuning: every weight is trained."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from sftjob.methods.base import BaseName, FineTuning, Model, Precision, StateDict


@dataclass(frozen=True, kw_only=True)
class FullFineTuning(FineTuning):
    def base_dtype(self, precision: Precision) -> torch.dtype:
        """float32 always: updates of a small learning rate vanish in bf16 weights; bf16 is the autocast's affair."""
        return torch.float32

    def prepare(self, model: PreTrainedModel, *, base: BaseName, added_token_ids: tuple[int, ...]) -> Model:
        """Every parameter is trained; added tokens are among them."""
        return model.requires_grad_(True)

    def weights(self, model: Model, state_dict: StateDict | None = None) -> dict[str, torch.Tensor]:
        """All parameters under the names of the file; a tied head is not written twice."""
        tied = set(model.all_tied_weights_keys)
        return {name: tensor for name, tensor in (state_dict or model.state_dict()).items() if name not in tied}

    def save(self, model: Model, folder: Path, *, state_dict: StateDict | None = None, resumable: bool = False) -> None:
        """model.safetensors (in shards where it is large), config.json and generation_config.json."""
        # Some architectures fuse weights while loading. An export gets the published form back; a checkpoint must
        # not, since Trainer loads it without that conversion and would skip what it does not recognise.
        model.save_pretrained(folder, state_dict=state_dict, save_original_format=not resumable)

    def renames(self, model: Model) -> bool:
        """True where transformers fuses or renames weights while it loads them (experts, mostly)."""
        return bool(getattr(model, "_weight_conversions", None))

    def merge(self, model: Model) -> PreTrainedModel:
        """The model itself."""
        return model
