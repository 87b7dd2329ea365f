import pytest

from sftjob.plan.flops import flops_per_token
from sftjob.resolved import ResolvedMethod
from tests.unit.plan.shapes import FULL, LLAMA_8B, LORA, QLORA, facts_of


@pytest.mark.parametrize(
    ("method", "length", "giga"),
    [(FULL, 1024, 45.8), (LORA, 1024, 31.1), (FULL, 4096, 48.2), (LORA, 4096, 33.5), (QLORA, 8192, 36.7)],
)
def test_llama_8b(method: ResolvedMethod, length: int, giga: float) -> None:
    """6 operations a trained weight, 4 a frozen one, and causal attention: worked out by hand."""
    counted = flops_per_token(facts_of(LLAMA_8B), method, length=length, checkpointing=False)

    assert counted.model / 1e9 == pytest.approx(giga, abs=0.05)
    assert counted.recomputed == 0


def test_recomputing_is_apart() -> None:
    counted = flops_per_token(facts_of(LLAMA_8B), LORA, length=4096, checkpointing=True)

    assert counted.model / 1e9 == pytest.approx(33.5, abs=0.05)
    assert counted.recomputed == 2 * 6_979_321_856 + 2 * 32 * 4096 * 4096
