"""The mistakes of a job's files: a cap on rows, none on lost files, and a count for what is not spelled out."""

import pytest

from sftjob.data.problems import SHOWN, Problems
from sftjob.errors import DataError, Problem


def _problem(line: int, file: str = "f") -> Problem:
    return Problem(file=file, line=line, reason="bad")


def _rows(count: int, *, allowed: int = 0) -> Problems:
    problems = Problems(allowed=allowed)
    for line in range(1, count + 1):
        problems.add_row([_problem(line)])
    return problems


def test_rows_up_to_the_cap_are_told_and_let_pass() -> None:
    problems = _rows(2, allowed=2)
    problems.raise_any()
    assert list(problems.skipped()) == ["skipped: f:1: bad", "skipped: f:2: bad"]


def test_many_rows_are_counted() -> None:
    lines = list(_rows(SHOWN + 5, allowed=100).skipped())
    assert len(lines) == SHOWN + 1
    assert lines[-1] == f"skipped: {SHOWN + 5} rows in all"
    with pytest.raises(DataError) as caught:
        _rows(SHOWN + 1).raise_any()
    assert str(caught.value).splitlines()[-1] == "f: and 1 more problem"


def test_a_lost_file_is_never_let_pass_and_always_shown() -> None:
    problems = _rows(SHOWN, allowed=100)
    problems.add_fatal(_problem(99))
    with pytest.raises(DataError) as caught:
        problems.raise_any()
    assert "f:99: bad" in str(caught.value)


def test_parts_add_up_in_the_order_of_files_and_lines() -> None:
    whole = Problems(allowed=2)
    whole.add_row([_problem(5)])
    for part in ([_problem(1, "g")], [_problem(2)]):
        other = Problems()
        other.add_row(part)
        whole.merge(other)
    with pytest.raises(DataError) as caught:
        whole.raise_any()
    assert [str(each) for each in caught.value.problems] == ["f:2: bad", "f:5: bad", "g:1: bad"]
