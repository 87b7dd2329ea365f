"""Collects the mistakes of all files of a job, so that they are repaired in one go and not one by one."""

from collections.abc import Iterable, Iterator
from typing import Final

from sftjob.errors import DataError, Problem

SHOWN: Final = 20
"""Problems that are spelled out; the rest is counted."""


class Problems:
    """Keeps the first `SHOWN` problems and the number of all of them."""

    def __init__(self, *, allowed: int = 0) -> None:
        """`allowed` rows may be left out for their mistakes before `raise_any` raises."""
        self.rows = 0
        """Rows that cannot be used."""
        self.shown: list[Problem] = []
        self._allowed = allowed
        self._count = 0
        self._fatal = False

    def add_row(self, problems: Iterable[Problem]) -> None:
        """Books a row that cannot be used, and why."""
        self.rows += 1
        for problem in problems:
            self._add(problem)

    def add_fatal(self, problem: Problem) -> None:
        """Books what loses an unknown number of rows: no cap allows that."""
        self._fatal = True
        self._add(problem)
        if problem not in self.shown:
            self.shown[-1] = problem

    def merge(self, other: "Problems") -> None:
        """Adds what was found in later rows."""
        self.rows += other.rows
        self._count += other._count
        self._fatal |= other._fatal
        self.shown += other.shown[: SHOWN - len(self.shown)]

    def skipped(self) -> Iterator[str]:
        """Lines for people about the rows that were left out."""
        yield from (f"skipped: {problem}" for problem in self.shown)
        if self.rows > len(self.shown):
            yield f"skipped: {self.rows:,} rows in all"

    def raise_any(self) -> None:
        """Raises `DataError` with all of them, unless they are no more rows than allowed."""
        if not self._fatal and self.rows <= self._allowed:
            return
        # Templates refuse a row long after its file was read.
        files = list(dict.fromkeys(problem.file for problem in self.shown))
        shown = sorted(self.shown, key=lambda problem: (files.index(problem.file), problem.line))
        if self._count == len(shown):
            raise DataError(shown)
        more = self._count - len(shown)
        rest = Problem(file=shown[0].file, reason=f"and {more:,} more {'problem' if more == 1 else 'problems'}")
        raise DataError([*shown, rest])

    def _add(self, problem: Problem) -> None:
        self._count += 1
        if len(self.shown) < SHOWN:
            self.shown.append(problem)
