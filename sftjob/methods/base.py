"""What a fine-tuning method is: which weights it trains, and what it writes.

`train` runs every method through the same loop and knows none of their names.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from peft import PeftModel
from transformers import BitsAndBytesConfig, PreTrainedModel

from sftjob.methods.shards import numel_of

Model: TypeAlias = PreTrainedModel | PeftModel
Precision = Literal["bf16", "fp32"]
StateDict = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class BaseName:
    """What a person calls the base model; it goes into an adapter's config."""

    name: str
    """Hub id, folder name or URI."""
    revision: str | None = None
    """Commit on the hub."""


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    trainable: int
    total: int


class FineTuning(ABC):
    """One method with its hyperparameters. Instances hold no model."""

    @abstractmethod
    def base_dtype(self, precision: Precision) -> torch.dtype:
        """In which dtype the base model is loaded."""

    def quantization(self, precision: Precision) -> BitsAndBytesConfig | None:
        """How the frozen base model is quantised while it is loaded; None where it is not."""
        return None

    @abstractmethod
    def prepare(self, model: PreTrainedModel, *, base: BaseName, added_token_ids: tuple[int, ...]) -> Model:
        """Marks what is trained and adds what is missing. The model is used up: work on with the returned one.

        Args:
            model: as `load_base` returns it.
            base: what the export calls its base model.
            added_token_ids: tokens that the model has never seen; their embeddings are always trained.

        Raises:
            ConfigurationError: the method does not fit this model; `field` names the setting.
        """

    @abstractmethod
    def weights(self, model: Model, state_dict: StateDict | None = None) -> dict[str, torch.Tensor]:
        """Name → tensor of everything that `save` writes, without copies; `state_dict` as there."""

    @abstractmethod
    def save(self, model: Model, folder: Path, *, state_dict: StateDict | None = None, resumable: bool = False) -> None:
        """Writes weights and config, as safetensors and JSON, so that `from_pretrained` reads them.

        Args:
            model: what `prepare` returned, unwrapped.
            folder: made if absent.
            state_dict: weights gathered from elsewhere, where the model itself holds only a part of them.
            resumable: for a checkpoint, under the names that the model has in memory.
        """

    def renames(self, model: Model) -> bool:
        """True where an export stores weights under other names or in other pieces than `weights` has them."""
        return False

    @abstractmethod
    def merge(self, model: Model) -> PreTrainedModel:
        """One model of the base's architecture that computes what `model` does, as far as its dtype can tell.

        Sums are taken in float32, a layer at a time, and rounded to the dtype of the layer.

        Args:
            model: what was trained, over an unquantised base. It is used up: work on with the returned one.
        """


def count_parameters(model: torch.nn.Module) -> ParameterCounts:
    """Parameters that an optimizer would change, and all of them; tied weights count once."""
    parameters = list(model.parameters())
    return ParameterCounts(
        trainable=sum(numel_of(parameter) for parameter in parameters if parameter.requires_grad),
        total=sum(map(numel_of, parameters)),
    )
