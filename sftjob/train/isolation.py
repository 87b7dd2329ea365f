"""Do the documents of a pack see each other? Asked before training, of the very model that is to be trained."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Final

import torch

from sftjob.errors import ConfigurationError
from sftjob.methods import Model
from sftjob.train.collate import NOT_FOR_THE_MODEL, SEQ_LENGTHS, Row
from sftjob.train.trainer import plain_model

Collate = Callable[[Sequence[Row]], dict[str, torch.Tensor]]
Document = list[int]
_LENGTHS: Final = (9, 8, 7, 8)
"""Tokens of the three documents of the pack, and of the one that takes the place of the second."""


@torch.no_grad()
def check_isolation(model: Model, collate: Collate) -> None:
    """Changes a document of a pack and looks at its neighbours; then compares each with itself outside a pack.

    Draws no random numbers, and leaves every module in the mode that it was in.

    Args:
        model: as it will be trained, on its device.
        collate: makes the batches of the training.

    Raises:
        ConfigurationError: a neighbour's logits changed at all (on a GPU or with experts: by more than noise), or a
            document's logits differ by more than noise from those outside a pack. Recurrent layers do the first, models
            that count positions themselves the second.
    """
    forward = inspect.signature(type(plain_model(model)).forward).parameters.values()
    if not any(each.name == "position_ids" or each.kind is each.VAR_KEYWORD for each in forward):
        raise _refusal(model, "takes no position_ids")
    first, middle, last, other = _documents(model.config.get_text_config().vocab_size)
    with _evaluation_mode(model):
        packed = _packed_logits(model, collate, [first, middle, last])
        changed = _packed_logits(model, collate, [first, other, last])
        alone = [_alone_logits(model, collate, document) for document in (first, middle, last)]
    noise = 2 * float(torch.finfo(alone[0].dtype).eps) ** 0.5  # 32 layers of bf16 may add up to half of it
    # The same kernels on the same shapes: on a CPU not a bit may differ. NaN passes, and ends the first step.
    allowed = 0.0 if alone[0].device.type == "cpu" and not _has_experts(model) else noise
    if (difference := max(_difference(changed[0], packed[0]), _difference(changed[2], packed[2]))) > allowed:
        raise _refusal(model, f"lets a document see its neighbour, whose change moves its logits by {difference:.1e}")
    if (difference := max(map(_difference, packed, alone))) > noise:
        raise _refusal(model, f"reads a document in a pack otherwise than alone: its logits differ by {difference:.1e}")


def _has_experts(model: Model) -> bool:
    """An expert multiplies all its tokens at once, and their number decides the order of sums, thus the last bits."""
    return hasattr(model.config.get_text_config(), "num_experts_per_tok")


def _refusal(model: Model, what: str) -> ConfigurationError:
    attention = getattr(model.config, "_attn_implementation", None)
    return ConfigurationError(
        f"{type(plain_model(model)).__name__} with {attention} attention {what}",
        field="training.packing",
        hint="set training.packing: false",
    )


def _documents(vocab_size: int) -> list[Document]:
    """Documents that have no token in common and together span the vocabulary."""
    count = sum(_LENGTHS)
    ids = [(2 * number + 1) * vocab_size // (2 * count) for number in range(count)]
    return [ids[start:end] for start, end in pairwise([0, *accumulate(_LENGTHS)])]


@contextmanager
def _evaluation_mode(model: Model) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _packed_logits(model: Model, collate: Collate, documents: list[Document]) -> list[torch.Tensor]:
    """[tokens, vocabulary] of each document in one pack of two: some kernels know packs only when they are alone."""
    lengths = [len(document) for document in documents]
    ids = [token for document in documents for token in document]
    pack = {"input_ids": ids, "labels": ids, SEQ_LENGTHS: lengths}
    logits = _logits(model, collate, [pack, pack])
    return list(torch.split(logits, lengths))


def _alone_logits(model: Model, collate: Collate, document: Document) -> torch.Tensor:
    """[tokens, vocabulary]."""
    return _logits(model, collate, [{"input_ids": document, "labels": document}])


def _logits(model: Model, collate: Collate, rows: Sequence[Row]) -> torch.Tensor:
    """[tokens, vocabulary] of the first row."""
    batch = {name: tensor.to(model.device) for name, tensor in collate(rows).items() if name not in NOT_FOR_THE_MODEL}
    logits: torch.Tensor = model(**batch, use_cache=False).logits[0]
    return logits


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest over positions, as a share of the logits' own size; 0 only where all are equal."""
    sizes = expected.double().norm(dim=-1).clamp(min=torch.finfo(torch.float64).tiny)
    return float(((found.double() - expected.double()).norm(dim=-1) / sizes).max())
