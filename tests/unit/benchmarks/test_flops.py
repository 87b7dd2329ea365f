"""The formula against figures that were worked out by hand for Llama 3.1 8B."""

import dataclasses

import pytest

from benchmarks.flops import Counts, flops_per_token

LLAMA = Counts(linear=6_979_321_856, head=4096 * 128_256, layers=32, width=4096)
RANK_16 = dataclasses.replace(LLAMA, adapters=41_943_040)


@pytest.mark.parametrize(("length", "full", "lora"), [(1024, 45.8, 31.1), (4096, 48.2, 33.5), (8192, 51.5, 36.7)])
def test_llama_8b(length: int, full: float, lora: float) -> None:
    assert flops_per_token(LLAMA, [length]) / 1e9 == pytest.approx(full, abs=0.06)
    assert flops_per_token(RANK_16, [length]) / 1e9 == pytest.approx(lora, abs=0.06)


def test_documents_attend_to_themselves_only() -> None:
    whole, halves = (flops_per_token(LLAMA, lengths) for lengths in ([4096], [2048, 2048]))
    assert whole - halves == 3 * 2 * 32 * 4096 * 2048


def test_the_head_computes_labelled_tokens_only() -> None:
    assert flops_per_token(LLAMA, [8]) - flops_per_token(LLAMA, [8], trained_share=0.5) == 3 * LLAMA.head
