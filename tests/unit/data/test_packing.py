import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftjob.data.packing import best_fit_decreasing

CAPACITY = 32
some_lengths = st.lists(st.integers(1, CAPACITY), max_size=60)


def test_the_longest_begin_and_the_rest_goes_where_it_fits_best() -> None:
    assert best_fit_decreasing([3, 7, 2, 6, 5], 10) == [[1, 0], [3, 2], [4]]


def test_a_row_goes_into_the_fullest_pack_that_takes_it() -> None:
    assert best_fit_decreasing([2, 7, 6, 3], 10) == [[1, 3], [2, 0]]
    assert best_fit_decreasing([6, 8, 2], 10) == [[1, 2], [0]]


def test_rows_of_one_length_keep_their_order() -> None:
    assert best_fit_decreasing([5, 5, 5, 5], 10) == [[0, 1], [2, 3]]


def test_a_full_row_is_a_pack() -> None:
    assert best_fit_decreasing([10, 10, 1], 10) == [[0], [1], [2]]


def test_nothing_to_pack() -> None:
    assert best_fit_decreasing([], 10) == []


@pytest.mark.parametrize("lengths", [[1, 11], [0, 3], [-1]])
def test_rows_that_no_pack_takes(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fit packs of 10"):
        best_fit_decreasing(lengths, 10)


@given(some_lengths)
def test_every_row_once_and_no_pack_too_full(lengths: list[int]) -> None:
    packs = best_fit_decreasing(lengths, CAPACITY)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in pack) <= CAPACITY for pack in packs)


@given(some_lengths)
def test_is_best_fit_decreasing(lengths: list[int]) -> None:
    packs = best_fit_decreasing(lengths, CAPACITY)
    assert sorted(sum(lengths[index] for index in pack) for pack in packs) == _slow_best_fit(lengths)
    assert best_fit_decreasing(tuple(lengths), CAPACITY) == packs


@given(st.lists(st.integers(1, CAPACITY), max_size=8))
def test_within_the_bound_of_the_fewest_packs(lengths: list[int]) -> None:
    """11/9 of the optimum and 6/9 of a pack, proven for first-fit decreasing and best-fit decreasing alike."""
    assert len(best_fit_decreasing(lengths, CAPACITY)) <= (11 * _fewest(sorted(lengths, reverse=True), []) + 6) / 9


def test_many_rows_leave_little_room() -> None:
    draw = random.Random(0)
    lengths = [min(max(round(draw.lognormvariate(4.56, 0.8)), 16), 512) for _ in range(20_000)]
    packs = best_fit_decreasing(lengths, 512)
    assert sum(lengths) / (512 * len(packs)) >= 0.97


def _slow_best_fit(lengths: Sequence[int]) -> list[int]:
    """Tokens of each pack, by the definition; packs of one fill are alike."""
    packs: list[int] = []
    for length in sorted(lengths, reverse=True):
        fullest = max((tokens for tokens in packs if tokens + length <= CAPACITY), default=0)
        if fullest:
            packs.remove(fullest)
        packs.append(fullest + length)
    return sorted(packs)


def _fewest(lengths: list[int], spaces: list[int]) -> int:
    """Fewest packs, by trying all ways."""
    if not lengths:
        return len(spaces)
    length, *others = lengths
    found = _fewest(others, [*spaces, CAPACITY - length])
    for space in {space for space in spaces if space >= length}:
        left = spaces.copy()
        left.remove(space)
        found = min(found, _fewest(others, [*left, space - length]))
    return found
