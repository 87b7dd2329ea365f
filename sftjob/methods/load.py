"""Models from local folders: safetensors only, no code of theirs, no network, nothing left to chance."""

from pathlib import Path
from typing import Any, Final

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig, PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled

from sftjob.errors import ConfigurationError, InputMissing
from sftjob.methods.base import Model
from sftjob.methods.shards import whole

ATTENTION: Final = "sdpa"
ADAPTER_CONFIG: Final = "adapter_config.json"
GENERATION_CONFIG: Final = "generation_config.json"
_NEW_ROW_SPREAD: Final = 0.1
"""Standard deviation of a new embedding row around the mean row, in standard deviations of the existing rows."""


def load_base(
    folder: Path, *, vocab_size: int, dtype: torch.dtype, seed: int, quantization: BitsAndBytesConfig | None = None
) -> PreTrainedModel:
    """Loads a causal language model and gives it an embedding row for every token.

    New rows start near the mean of the others, where they take no probability away from known tokens
    (https://www.cs.columbia.edu/~johnhew/vocab-expansion.html). The same arguments give the same rows in every process.

    Args:
        folder: config.json and *.safetensors.
        vocab_size: rows that the tokenizer needs; a larger embedding is left as it is.
        dtype: of all weights; of those that are not quantised, where some are.
        seed: of the new rows.
        quantization: how linear layers are quantised, on this process's GPU where there is one.

    Raises:
        InputMissing: no weights in `folder`.
        ConfigurationError: transformers does not know the architecture, or weights are missing or of another shape.
    """
    if not any(folder.glob("*.safetensors")):
        raise InputMissing("no *.safetensors", file=str(folder), hint="convert the weights to safetensors")
    model = _from_pretrained(folder, dtype, quantization)
    _grow_vocabulary(model, vocab_size, seed)
    return model


def load_tuned(
    base_folder: Path,
    export_folder: Path,
    *,
    vocab_size: int,
    dtype: torch.dtype,
    seed: int,
    quantization: BitsAndBytesConfig | None = None,
) -> Model:
    """Loads what a run exported, in evaluation mode: an adapter over its base, or a whole model.

    Args:
        base_folder: the base model; not read where the export is a whole model.
        export_folder: as `export` wrote it.
        vocab_size: as for `load_base`.
        dtype: of the base's or the whole model's weights.
        seed: the run's own, so that rows which are not trained are those of the training.
        quantization: of the base model, as it was trained with.

    Raises:
        InputMissing, ConfigurationError: as `load_base`.
    """
    if not (export_folder / ADAPTER_CONFIG).exists():
        return load_base(export_folder, vocab_size=vocab_size, dtype=dtype, seed=seed).eval()
    base = load_base(base_folder, vocab_size=vocab_size, dtype=dtype, seed=seed, quantization=quantization)
    model = PeftModel.from_pretrained(base, export_folder, is_trainable=False, local_files_only=True)
    if (export_folder / GENERATION_CONFIG).exists():
        base.generation_config = GenerationConfig.from_pretrained(export_folder, local_files_only=True)
    return model.eval()


def _from_pretrained(folder: Path, dtype: torch.dtype, quantization: BitsAndBytesConfig | None) -> PreTrainedModel:
    options: dict[str, Any] = {
        "dtype": dtype,
        # Named, since a config.json may ask for an attention kernel that is code from elsewhere.
        "attn_implementation": ATTENTION,
        "use_safetensors": True,
        "local_files_only": True,
        "trust_remote_code": False,
        "output_loading_info": True,
    }
    if quantization is not None:
        options["quantization_config"] = quantization
        if not is_deepspeed_zero3_enabled():  # which puts each rank's share where it belongs by itself
            options["device_map"] = {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
    try:
        model, report = AutoModelForCausalLM.from_pretrained(folder, **options)
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        raise _unloadable(folder, error) from error
    # transformers would fill the gaps with random numbers and go on.
    if missing := sorted(report["missing_keys"]):
        raise ConfigurationError(
            f"{len(missing)} weights are missing, the first is {missing[0]}",
            file=str(folder),
            hint="fetch the model again or correct its config.json",
        )
    if quantization is not None:
        _make_reproducible(model)
    return model


def _make_reproducible(model: PreTrainedModel) -> None:
    """Keeps bitsandbytes from packing weights anew.

    On CPUs with AVX512-BF16 version 0.50 does that in the first evaluation and rounds the scales for good: training
    would go on with another base, and a reloaded one would differ.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _unloadable(folder: Path, error: Exception) -> Exception:
    """Errors of transformers about the model; those of the machine (memory, disk) stay what they are."""
    text = str(error).strip()
    if isinstance(error, torch.OutOfMemoryError) or (isinstance(error, OSError) and error.errno) or "memory" in text:
        return error
    lines = text.splitlines() or [type(error).__name__]
    return ConfigurationError(
        f"transformers cannot load this model: {lines[0]}",
        file=str(folder),
        hint="choose a model whose config.json and weights fit each other and whose architecture transformers knows",
    )


def _grow_vocabulary(model: PreTrainedModel, vocab_size: int, seed: int) -> None:
    known = model.get_input_embeddings().num_embeddings
    if vocab_size <= known:
        return
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):  # transformers draws rows of its own first
        model.resize_token_embeddings(vocab_size, mean_resizing=False)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is None or head.weight is embedding.weight
    weights = [layer.weight for layer in ((embedding,) if tied else (embedding, head))]
    with whole(weights, change=True):
        for weight in weights:
            _draw_rows(weight, known, generator)


@torch.no_grad()
def _draw_rows(weight: torch.Tensor, known: int, generator: torch.Generator) -> None:
    """Fills rows `known`… of a [vocabulary, hidden] weight in place."""
    old = weight[:known].float()
    noise = torch.randn(weight.shape[0] - known, weight.shape[1], generator=generator)
    weight[known:] = (old.mean(dim=0) + _NEW_ROW_SPREAD * old.std(dim=0) * noise).to(weight.dtype)
