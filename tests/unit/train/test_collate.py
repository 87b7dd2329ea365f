import pytest
import torch

from sftjob.train.collate import Collator

pytestmark = pytest.mark.train  # imports torch, which takes as long as the whole quick ring
PAD = 9


def test_rows_are_filled_up_on_the_right() -> None:
    batch = Collator(PAD)(
        [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, {"input_ids": [4, 5], "labels": [-100, 5]}]
    )
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[1, 2, 3], [4, 5, PAD]],
        "labels": [[-100, 2, 3], [-100, 5, -100]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
        "tokens": [3, 2],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_positions_of_a_pack_begin_anew_and_no_mask_hides_them() -> None:
    packs = [
        {"input_ids": [1, 2, 3, 4, 5, 6], "labels": [-100, 2, 3, -100, -100, 6], "seq_lengths": [3, 1, 2]},
        {"input_ids": [7, 8, 7], "labels": [-100, 8, 7], "seq_lengths": [3]},
    ]
    batch = Collator(PAD)(packs)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[1, 2, 3, 4, 5, 6], [7, 8, 7, PAD, PAD, PAD]],
        "labels": [[-100, 2, 3, -100, -100, 6], [-100, 8, 7, -100, -100, -100]],
        "position_ids": [[0, 1, 2, 0, 0, 1], [0, 1, 2, 0, 1, 2]],
        "tokens": [6, 3],
    }
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


@pytest.mark.parametrize("lengths", [[], [1], [1, 1, 1]])
def test_one_position_for_every_token(lengths: list[int]) -> None:
    row = {"input_ids": [1] * 4, "labels": [1] * 4, "seq_lengths": [*lengths, 4 - sum(lengths)]}
    assert Collator(PAD)([row])["position_ids"].shape == (1, 4)
