"""Loss and token accuracy of a model on encoded rows: teacher-forced, batched, weighted by token."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn.functional import cross_entropy

from sftjob.data.masks import IGNORED, Encoded
from sftjob.evaluate.batches import Progress, batches_by_length
from sftjob.methods import Model

_CHUNK_TOKENS: Final = 1024
"""Tokens whose logits are widened to float32 at once: [1024, vocabulary], 0.6 GiB at 150,000 tokens."""


@dataclass(frozen=True)
class TokenScores:
    """Sums over the trained tokens of some rows."""

    negative_log_likelihood: float
    """In nats."""
    trained_tokens: int
    correct: int
    """Tokens that the model ranks first."""

    @property
    def loss(self) -> float:
        """Nats a token; NaN without a token."""
        return self.negative_log_likelihood / self.trained_tokens if self.trained_tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss), or the largest float where that is out of range."""
        return math.exp(self.loss) if self.loss < math.log(sys.float_info.max) else sys.float_info.max

    @property
    def token_accuracy(self) -> float:
        return self.correct / self.trained_tokens if self.trained_tokens else math.nan

    def __add__(self, other: "TokenScores") -> "TokenScores":
        return TokenScores(
            self.negative_log_likelihood + other.negative_log_likelihood,
            self.trained_tokens + other.trained_tokens,
            self.correct + other.correct,
        )


def score_rows(
    model: Model, rows: Sequence[Encoded], *, batch_size: int, pad_token_id: int, on_progress: Progress | None = None
) -> TokenScores:
    """Scores every trained token (label other than -100) given all tokens before it.

    Args:
        model: in evaluation mode; its device is used.
        rows: in any order; they are batched by length, which changes the sums only in their last digits.
        batch_size: rows at once.
        pad_token_id: fills short rows on the right; it is neither attended to nor counted.
    """
    total, done = TokenScores(0.0, 0, 0), 0
    with torch.inference_mode():
        for batch in batches_by_length(rows, batch_size, lambda row: len(row.input_ids)):
            total += _score_batch(model, [rows[index] for index in batch], pad_token_id)
            done += len(batch)
            if on_progress:
                on_progress(done, len(rows))
    return total


def _score_batch(model: Model, rows: Sequence[Encoded], pad_token_id: int) -> TokenScores:
    width = max(len(row.input_ids) for row in rows)
    ids = _padded([row.input_ids for row in rows], width, pad_token_id).to(model.device)
    labels = _padded([row.labels for row in rows], width, IGNORED).to(model.device)
    mask = _padded([[1] * len(row.input_ids) for row in rows], width, 0).to(model.device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    targets = labels[:, 1:]
    trained = targets != IGNORED
    return _score_tokens(logits[:, :-1][trained], targets[trained])


def _score_tokens(logits: torch.Tensor, targets: torch.Tensor) -> TokenScores:
    """Sums over tokens; logits [tokens, vocabulary] of any float type, targets [tokens]."""
    loss, correct = 0.0, 0
    for start in range(0, len(targets), _CHUNK_TOKENS):
        some, wanted = logits[start : start + _CHUNK_TOKENS].float(), targets[start : start + _CHUNK_TOKENS]
        loss += cross_entropy(some, wanted, reduction="none").double().sum().item()
        correct += int((some.argmax(dim=-1) == wanted).sum().item())
    return TokenScores(loss, len(targets), correct)


def _padded(lists: Sequence[Sequence[int]], width: int, filler: int) -> torch.Tensor:
    """[rows, width], filled up on the right."""
    return torch.tensor([[*values, *[filler] * (width - len(values))] for values in lists])
