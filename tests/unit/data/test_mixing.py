"""Mixing: shares as the weights, and the same choice for the same seed."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftjob.data.mixing import StoppingStrategy, chosen_rows, mixed_sizes

SOURCES = st.lists(st.tuples(st.integers(1, 10_000), st.floats(0.01, 100)), min_size=1, max_size=5)
STRATEGIES = st.sampled_from(["first_exhausted", "all_exhausted"])


@pytest.mark.parametrize(
    ("sizes", "weights", "strategy", "expected"),
    [
        ([1000, 100], [1, 1], "first_exhausted", [100, 100]),
        ([1000, 100], [1, 1], "all_exhausted", [1000, 1000]),
        ([1000, 100], [7, 3], "first_exhausted", [233, 100]),
        ([1000, 100], [0.7, 0.3], "all_exhausted", [1000, 429]),
        ([10, 1000], [1, 0.001], "first_exhausted", [10, 1]),
        ([5], [3], "first_exhausted", [5]),
    ],
)
def test_sizes(sizes: list[int], weights: list[float], strategy: StoppingStrategy, expected: list[int]) -> None:
    assert mixed_sizes(sizes, weights, strategy) == expected


@given(SOURCES, STRATEGIES)
def test_one_source_gives_all_and_shares_are_the_weights(
    sources: list[tuple[int, float]], strategy: StoppingStrategy
) -> None:
    sizes, weights = [size for size, _ in sources], [weight for _, weight in sources]
    wanted = mixed_sizes(sizes, weights, strategy)
    assert any(want == size for want, size in zip(wanted, sizes, strict=True))
    for want, size in zip(wanted, sizes, strict=True):
        assert want <= size if strategy == "first_exhausted" else want >= size
    units = [want / weight for want, weight in zip(wanted, weights, strict=True)]
    # A rounded row is worth 1 / weight units.
    assert all(abs(a - b) <= 1 / min(weights) + 1e-6 * max(units) for a, b in pairwise(units))


@given(st.integers(1, 200), st.integers(0, 700), st.integers(0, 3))
def test_rows_are_chosen_evenly(size: int, wanted: int, seed: int) -> None:
    copies = chosen_rows(size, wanted, seed=seed, source=0)
    assert (len(copies), sum(copies)) == (size, wanted)
    assert max(copies) - min(copies) <= 1
    assert copies == chosen_rows(size, wanted, seed=seed, source=0)


def test_seeds_and_sources_choose_other_rows() -> None:
    choices = [chosen_rows(100, 50, seed=seed, source=source) for seed in (1, 2) for source in (0, 1)]
    assert len({tuple(choice) for choice in choices}) == 4
    # Written down, since a run that is resumed on another Python must train on the same rows.
    assert chosen_rows(8, 3, seed=42, source=0) == [0, 0, 0, 0, 0, 1, 1, 1]
