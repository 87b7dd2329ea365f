"""Final weights for others to load: safetensors and JSON only, complete, finite and different from the start."""

import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import GenerationConfig

from sftjob.errors import ConfigurationError, CrashError, Diverged
from sftjob.methods.base import FineTuning, Model, StateDict
from sftjob.methods.shards import whole

Fingerprint = Mapping[str, float]
Shapes = Mapping[str, tuple[int, ...]]


def export(
    method: FineTuning,
    model: Model,
    folder: Path,
    *,
    tokenizer: Path,
    stop_token_ids: tuple[int, ...],
    state_dict: StateDict | None = None,
) -> None:
    """Writes a folder that `from_pretrained` of transformers (and of PEFT, for an adapter) loads without the network.

    Args:
        folder: replaced; until all is written and checked there is nothing of this name.
        tokenizer: folder whose files are copied, chat template included.
        stop_token_ids: end the model's turn in the template; generation stops there.
        state_dict: weights gathered from all ranks, where the model itself holds only a part of them.

    Raises:
        CrashError: what was written is not what was trained.
        Diverged: a weight is not finite.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(tokenizer, partial)
    method.save(model, partial, state_dict=state_dict)
    generation_config(model, stop_token_ids).save_pretrained(partial)
    check_files(method, model, partial, state_dict=state_dict)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def generation_config(model: Model, stop_token_ids: tuple[int, ...]) -> GenerationConfig:
    """The model's own, ending at the template's stop tokens first and at its old ones still."""
    own = model.generation_config
    config = GenerationConfig.from_dict(own.to_dict()) if own is not None else GenerationConfig()
    old = config.eos_token_id
    ends = [] if old is None else [old] if isinstance(old, int) else list(old)
    config.eos_token_id = list(dict.fromkeys((*stop_token_ids, *ends))) or None
    return config


def fingerprint(model: torch.nn.Module) -> Fingerprint:
    """Sum of every trainable tensor: cheap, and another after any training. Under ZeRO-3 all ranks must call it."""
    sums: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            with whole([parameter]):
                sums[name] = float(parameter.detach().sum(dtype=torch.float64))
    return sums


def check_changed(before: Fingerprint, model: torch.nn.Module) -> None:
    """Raises `ConfigurationError` when training has changed nothing."""
    if before and fingerprint(model) == before:
        raise ConfigurationError(
            "training has changed no weight",
            field="training.learning_rate",
            hint="train for more steps than training.warmup_steps, or raise the learning rate",
        )


def check_files(method: FineTuning, model: Model, folder: Path, *, state_dict: StateDict | None = None) -> None:
    """Reads the weights back and compares names and shapes with the model.

    Raises:
        CrashError: a tensor is missing, unexpected, empty or of another shape.
        Diverged: a tensor holds NaN or infinity.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in method.weights(model, state_dict).items()}
    found: dict[str, tuple[int, ...]] = {}
    for name, tensor in _stored(folder):
        found[name] = tuple(tensor.shape)
        if not bool(torch.isfinite(tensor).all()):
            raise Diverged(f"exported weight {name} is not finite", file=str(folder))
    if wrong := _difference(expected, found, renamed=method.renames(model)):
        raise CrashError(f"the export is incomplete: {wrong}", file=str(folder), hint="please report this")


def _difference(expected: Shapes, found: Shapes, *, renamed: bool) -> str:
    """What differs, in words; empty when nothing does."""
    if not found or any(0 in shape for shape in found.values()):
        return "it holds no weights"
    trained, written = (sum(math.prod(shape) for shape in shapes.values()) for shapes in (expected, found))
    if trained != written:
        return f"{written} of {trained} numbers written"
    names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return f"{names[0]} differs" if names and not renamed else ""


def _stored(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """One tensor at a time, so that a large model need not fit twice."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                yield name, file.get_tensor(name)
