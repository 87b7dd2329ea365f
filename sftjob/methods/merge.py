"""An adapter's sum with its base, written as a model of its own, and the proof that it is the same model."""

import gc
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from transformers import PreTrainedModel

from sftjob.errors import ConfigurationError
from sftjob.methods.base import FineTuning, Model, Precision
from sftjob.methods.load import load_base, load_tuned
from sftjob.records import LogitDifference, MergeParity

MERGED_DTYPE: Final = torch.bfloat16
"""What models are published in, whatever they were trained in."""
PARITY_ROWS: Final = 16
PARITY_TOKENS: Final = 512
"""First so many of a row are read."""
PARITY_POSITIONS: Final = 64
"""Last so many of them are compared: rows may begin alike, and a large vocabulary's logits take memory."""
_ADAPTER_FILES: Final = "adapter_*"
_GPU_SHARE: Final = 0.8
"""Of a GPU's free memory that weights may take: the rest is for activations and logits."""

Rows = Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class MergeTask:
    """What is merged, and on which rows it is compared."""

    method: FineTuning
    precision: Precision
    """Of the training."""
    base: Path
    export: Path
    """As `methods.export` wrote it."""
    vocab_size: int
    seed: int
    """The training's own, as for `load_tuned`."""
    split: str
    """Where the rows come from: `eval`, or `train` where none are held out."""
    rows: Rows
    """Token ids of whole rows; the first `PARITY_ROWS` are used."""
    tolerance: float
    mixture: bool
    """The model has experts, and rounding may send a token to another one: the mean difference decides."""


def merge_export(task: MergeTask, into: Path, progress: Callable[[str], None]) -> MergeParity:
    """Writes the adapter's sum with the unquantised base in bf16, reads it back and compares logits.

    The sum is compared with the adapter over the very base that it was added to. Over a quantised base, as it was
    trained, an adapter's logits are others; how far they are away is measured as well, and no reason to refuse.

    Args:
        into: replaced, and only when the comparison has held; what `AutoModelForCausalLM.from_pretrained` loads.
        progress: is given lines for people.

    Raises:
        ConfigurationError: logits differ by more than the tolerance, or as much as those of the base do; nothing was
            written.
    """
    rows = [list(row[:PARITY_TOKENS]) for row in task.rows[:PARITY_ROWS]]
    partial = into.with_name(f".{into.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        expected, effect = _write(task, rows, partial)
        merged = load_base(partial, vocab_size=0, dtype=task.method.base_dtype(task.precision), seed=task.seed)
        found = _logits(merged, rows)
        del merged
        parity = MergeParity(
            split=task.split,
            rows=len(rows),
            positions=sum(map(len, found)),
            tolerance=task.tolerance,
            measure="mean" if task.mixture else "max",
            difference=logit_difference(found, expected),
            effect=effect,
            trained=_from_trained(task, rows, found),
        )
        for line in parity_lines(parity):
            progress(line)
        require(parity)
        shutil.rmtree(into, ignore_errors=True)
        partial.rename(into)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return parity


def logit_difference(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> LogitDifference:
    """Compares logit vectors: the norm of a difference as a share of the expected vector's norm.

    Args:
        found, expected: [positions, vocabulary] of each row.
    """
    shares, agreed = [], []
    for one, other in zip(found, expected, strict=True):
        size = other.double().norm(dim=-1).clamp(min=torch.finfo(torch.float64).tiny)
        shares.append((one.double() - other.double()).norm(dim=-1) / size)
        agreed.append((one.argmax(dim=-1) == other.argmax(dim=-1)).double())
    every = torch.cat(shares)
    return LogitDifference(max=float(every.max()), mean=float(every.mean()), top1=float(torch.cat(agreed).mean()))


def parity_lines(parity: MergeParity) -> tuple[str, ...]:
    """What was measured, for people."""
    where = f"{parity.positions} tokens of {parity.rows} {parity.split} rows"
    lines = [f"merged model against the adapter over the unquantised base, {where}: {_words(parity.difference)}"]
    if parity.effect is not None:
        lines.append(f"the adapter itself changes the base's logits by {parity.effect.mean:.2%} on average")
    if parity.trained is not None:
        lines.append(f"merged model against the adapter over the four-bit base, as trained: {_words(parity.trained)}")
    return tuple(lines)


def require(parity: MergeParity) -> None:
    """Raises `ConfigurationError` where a merged model is not the adapter's, or no nearer to it than the base is."""
    difference = getattr(parity.difference, parity.measure)
    extent = "on average by" if parity.measure == "mean" else "by up to"
    where = f"{parity.positions} tokens of {parity.rows} {parity.split} rows"
    # Not `>`: what cannot be compared is no proof either.
    if not difference <= parity.tolerance:
        raise ConfigurationError(
            f"the merged model's logits differ from the adapter's {extent} {difference:.4f} of their size ({where}), "
            f"more than {parity.tolerance}",
            field="export.merge_tolerance",
            hint="use the adapter as it is (export.merge: false), or allow more here or by `sftjob merge --tolerance`",
        )
    if parity.effect is not None and not parity.difference.mean < parity.effect.mean:
        raise ConfigurationError(
            f"bf16 cannot hold this adapter: merging moves logits by {parity.difference.mean:.4f} of their size, "
            f"the adapter itself by {parity.effect.mean:.4f} ({where})",
            field="export.merge",
            hint="use the adapter as it is (export.merge: false), or train it further",
        )


def _write(task: MergeTask, rows: Rows, folder: Path) -> tuple[list[torch.Tensor], LogitDifference]:
    """Writes the merged model; returns the adapter's logits, and how far those of the base are from them."""
    model = _placed(
        load_tuned(
            task.base,
            task.export,
            vocab_size=task.vocab_size,
            dtype=task.method.base_dtype(task.precision),
            seed=task.seed,
        )
    )
    expected = _logits(model, rows)
    with model.disable_adapter():
        effect = logit_difference(_logits(model, rows), expected)
    merged: PreTrainedModel = task.method.merge(model).to(MERGED_DTYPE)
    shutil.copytree(task.export, folder, ignore=shutil.ignore_patterns(_ADAPTER_FILES))
    merged.save_pretrained(folder)
    return expected, effect


def _from_trained(task: MergeTask, rows: Rows, found: Sequence[torch.Tensor]) -> LogitDifference | None:
    """None where training had the unquantised base."""
    quantization = task.method.quantization(task.precision)
    if quantization is None:
        return None
    _free()
    model = load_tuned(
        task.base,
        task.export,
        vocab_size=task.vocab_size,
        dtype=task.method.base_dtype(task.precision),
        seed=task.seed,
        quantization=quantization,
    )
    return logit_difference(found, _logits(model, rows))


@torch.no_grad()
def _logits(model: Model, rows: Rows) -> list[torch.Tensor]:
    """[positions, vocabulary] of each row, on the CPU, in the dtype of the model."""
    _placed(model).eval()
    found = []
    for row in rows:
        ids = torch.tensor([row], device=model.device)
        found.append(model(input_ids=ids, use_cache=False).logits[0, -PARITY_POSITIONS:].cpu())
    return found


def _placed(model: Model) -> Model:
    """On the GPU where it fits there; weights that are there already stay."""
    if not torch.cuda.is_available() or model.device.type == "cuda":
        return model
    _free()
    size = sum(each.numel() * each.element_size() for each in model.parameters())
    free, _ = torch.cuda.mem_get_info()
    return model.to("cuda") if size < _GPU_SHARE * free else model


def _free() -> None:
    """Gives the memory of models that nobody holds any more back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _words(difference: LogitDifference) -> str:
    return (
        f"logits differ by at most {difference.max:.2%} of their size, {difference.mean:.2%} on average; "
        f"the first choice is the same for {difference.top1:.1%}"
    )
