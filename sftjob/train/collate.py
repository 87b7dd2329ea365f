"""Rows → one batch of tensors: padded rows with an attention mask, or packs whose position ids say where each ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

IGNORED_LABEL: Final = -100
"""No loss at this position (PyTorch's `ignore_index`)."""
SEQ_LENGTHS: Final = "seq_lengths"
"""Column of packed rows: lengths of their documents, in order."""

NOT_FOR_THE_MODEL: Final = frozenset({"labels", "tokens"})
"""Of a batch; the trainer keeps them to itself."""

Row = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Collator:
    """Fills rows up on the right to the longest one.

    transformers keeps the documents of a pack apart by their position ids, but only where no attention mask is given,
    be it one of ones alone (`masking_utils`, transformers 5.23). So a batch has either the one or the other.
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """One batch.

        Args:
            rows: `input_ids` and `labels`; all of them packed, with `seq_lengths`, or none.

        Returns:
            `input_ids`, `labels`: [rows, longest row], int64; filler has no label.
            `tokens`: [rows], int64: how many are no filler. Not for the model.
            `attention_mask`: [rows, longest row], int64: 0 on filler. Only of rows that are not packed.
            `position_ids`: [rows, longest row], int64: each document counts from 0, and so does the filler, a document
            that nobody looks at. Only of packs.
        """
        lengths = [len(row["input_ids"]) for row in rows]
        width = max(lengths)
        batch = {
            "input_ids": _filled([row["input_ids"] for row in rows], width, self.pad_token_id),
            "labels": _filled([row["labels"] for row in rows], width, IGNORED_LABEL),
            "tokens": torch.tensor(lengths),
        }
        if SEQ_LENGTHS in rows[0]:
            batch["position_ids"] = torch.stack([_positions(row[SEQ_LENGTHS], width) for row in rows])
        else:
            batch["attention_mask"] = (torch.arange(width) < batch["tokens"][:, None]).long()
        return batch


def _filled(rows: Sequence[Sequence[int]], width: int, filler: int) -> torch.Tensor:
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


def _positions(seq_lengths: Sequence[int], width: int) -> torch.Tensor:
    """[width]: counts from 0 in every document and in what is left."""
    lengths = torch.tensor([*seq_lengths, width - sum(seq_lengths)])
    starts = lengths.cumsum(0) - lengths
    return torch.arange(width) - starts.repeat_interleave(lengths)
