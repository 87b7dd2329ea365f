"""LoRA: low-rank adapters over a frozen base (https://arxiv.org/abs/2106.09685), through PEFT."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer, ParamWrapper
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from sftjob.errors import ConfigurationError, Problem
from sftjob.methods.base import BaseName, FineTuning, Model, Precision, StateDict
from sftjob.methods.shards import is_shared, token_rows_on_any_device
from sftjob.methods.targets import Targets, find_targets, head_is_tied, name_of

ADAPTER_WEIGHTS: Final = "adapter_model.safetensors"
ADAPTER: Final = "default"


@dataclass(frozen=True, kw_only=True)
class LoraFineTuning(FineTuning):
    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: Literal["all-linear"] | tuple[str, ...]
    modules_to_save: tuple[str, ...] = ()
    use_rslora: bool = False
    use_dora: bool = False

    def base_dtype(self, precision: Precision) -> torch.dtype:
        """The base is frozen and may be as short as the precision; what is trained stays in float32."""
        return torch.bfloat16 if precision == "bf16" else torch.float32

    def prepare(self, model: PreTrainedModel, *, base: BaseName, added_token_ids: tuple[int, ...]) -> Model:
        """Adds adapters. Of the embeddings only the added tokens' rows are trained, so that the export stays small.

        Where `modules_to_save` names an embedding or a head, all its rows are trained, those of added tokens included.
        """
        targets = find_targets(model, self.target_modules, self.modules_to_save, added_tokens=bool(added_token_ids))
        self._check_experts(targets)
        saved, tied = _with_tied(model, targets.saved)
        config = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=self.r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=list(targets.linear),
            target_parameters=list(targets.experts) or None,
            modules_to_save=list(saved) or None,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            ensure_weight_tying=tied,
            trainable_token_indices=_token_rows(model, added_token_ids, saved),
        )
        with token_rows_on_any_device():
            adapted = get_peft_model(model, config)
        _check_adapted(adapted, targets)
        _lengthen(adapted)
        adapted.peft_config[ADAPTER].base_model_name_or_path = base.name
        adapted.peft_config[ADAPTER].revision = base.revision
        return adapted

    def weights(self, model: Model, state_dict: StateDict | None = None) -> dict[str, torch.Tensor]:
        """Adapters, rows of added tokens and modules that are trained whole, under the names of the file."""
        return _adapter_weights(model, state_dict)

    def save(self, model: Model, folder: Path, *, state_dict: StateDict | None = None, resumable: bool = False) -> None:
        """adapter_model.safetensors and adapter_config.json.

        PEFT's own `save_pretrained` would also look for the base model's config on the hub, and write a model card.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # Cloned: a head that is trained as one with its embedding is written twice, as PEFT does and expects.
        weights = {
            name: tensor.detach().clone().contiguous() for name, tensor in _adapter_weights(model, state_dict).items()
        }
        save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        config = copy.copy(model.peft_config[ADAPTER])
        config.inference_mode = True
        for name in ("target_modules", "target_parameters"):
            if isinstance(value := getattr(config, name), set):
                setattr(config, name, sorted(value))  # PEFT writes a set in another order every time
        config.save_pretrained(folder)

    @torch.no_grad()
    def merge(self, model: Model) -> PreTrainedModel:
        """Adds each adapter to its layer, puts trained rows and copies in their places, and takes PEFT away."""
        for module in model.modules():
            if isinstance(module, LoraLayer):
                _fold(module)
                dtype = _weight(module).dtype
            elif isinstance(module, TrainableTokensLayer):
                module.merge()
        # Copies of whole modules were trained in float32.
        return model.unload().to(dtype)

    def _check_experts(self, targets: Targets) -> None:
        problems = [
            Problem(
                field=f"method.{name}",
                reason=f"{targets.experts[0]} holds a matrix for each expert, whose adapters know no {what}",
                hint=f"leave {name} out, or leave the experts out of method.target_modules",
            )
            for name, what in (("lora_dropout", "dropout"), ("use_dora", "DoRA"))
            if targets.experts and getattr(self, name)
        ]
        if problems:
            raise ConfigurationError(tuple(problems))


def _with_tied(model: PreTrainedModel, saved: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """What PEFT is to copy, and whether embedding and head are among it and must stay one."""
    if not head_is_tied(model):
        return saved, False
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    both = tuple(name_of(model, layer) for layer in (embedding, head) if layer is not None)
    if not set(both) & set(saved):
        return saved, False
    return tuple(dict.fromkeys((*saved, *both))), head is not None


def _token_rows(
    model: PreTrainedModel, token_ids: tuple[int, ...], saved: tuple[str, ...]
) -> dict[str, list[int]] | None:
    """Layer → rows to train: of the embedding, and of a head with weights of its own, unless trained whole."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    layers = [embedding] if head_is_tied(model) else [embedding, head]
    names = [name_of(model, layer) for layer in layers]
    rows = {name.rpartition(".")[2]: list(token_ids) for name in names if name not in saved}
    return rows if token_ids and rows else None


def _check_adapted(model: PeftModel, targets: Targets) -> None:
    """PEFT renames what it is given for some mixtures; nobody should train other layers than they asked for."""
    adapted, asked = set(), {*targets.linear, *targets.experts}
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, ParamWrapper):
            adapted.add(f"{name.replace('.base_layer', '')}.{module.parameter_name}")
        elif isinstance(module, LoraLayer):
            adapted.add(name)
    if wrong := sorted(adapted ^ asked):
        raise ConfigurationError(
            f"PEFT adapts {len(adapted)} layers of this architecture where {len(asked)} were asked for; {wrong[0]} is "
            f"{'one too many' if wrong[0] in adapted else 'missing'}",
            field="method.target_modules",
            hint="name attention layers only, such as q_proj and v_proj",
        )


def _lengthen(model: PeftModel) -> None:
    """Makes what is trained float32: copies of whole modules come in the base's dtype, and DoRA measures in it."""
    for parameter in model.parameters():
        if parameter.requires_grad and not is_shared(parameter):
            parameter.data = parameter.data.float()
    for module in model.modules():
        magnitude = module.lora_magnitude_vector if isinstance(module, LoraLayer) else {}
        if ADAPTER in magnitude and not is_shared(magnitude[ADAPTER].weight):
            magnitude[ADAPTER].update_layer(
                base_layer=module.get_base_layer(),
                lora_A=module.lora_A[ADAPTER].weight,
                lora_B=module.lora_B[ADAPTER].weight,
                scaling=module.scaling[ADAPTER],
            )


def _fold(layer: LoraLayer) -> None:
    """Adds an adapter to the weight under it, in float32."""
    parameter = _weight(layer)
    dtype = parameter.dtype
    parameter.data = parameter.data.float()
    layer.merge()
    parameter.data = parameter.data.to(dtype)


def _weight(layer: LoraLayer) -> nn.Parameter:
    """The weight that an adapter is added to."""
    parameter: nn.Parameter = layer.get_param() if isinstance(layer, ParamWrapper) else layer.get_base_layer().weight
    return parameter


def _adapter_weights(model: Model, state_dict: StateDict | None) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = get_peft_model_state_dict(
        model, state_dict=state_dict, adapter_name=ADAPTER, save_embedding_layers=False
    )
    return weights
