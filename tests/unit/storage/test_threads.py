from collections.abc import Iterator
from threading import Event

import pytest

from sftjob.storage.threads import in_order


def test_results_keep_their_order() -> None:
    second_done = Event()

    def work(number: int) -> int:
        if number == 0:
            assert second_done.wait(10)
        if number == 1:
            second_done.set()
        return number * number

    assert list(in_order(work, range(10), threads=3)) == [number * number for number in range(10)]


def test_takes_no_more_than_it_can_hold() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = in_order(lambda number: number, items(), threads=4)
    next(results)
    assert len(taken) == 4
    results.close()


def test_first_error_ends_it() -> None:
    taken: list[int] = []

    def fail(number: int) -> int:
        taken.append(number)
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        list(in_order(fail, range(100), threads=2))
    assert len(taken) <= 2
