"""Collects the mistakes of a whole file, so that they are repaired in one go and not one by one."""

from typing import Final

from sftjob.errors import DataError, Problem

SHOWN: Final = 20
"""Problems that are spelled out; the rest is counted."""


class Problems:
    """Keeps the first `SHOWN` problems and the number of all the others."""

    def __init__(self) -> None:
        self._shown: list[Problem] = []
        self._more = 0

    def add(self, problem: Problem) -> None:
        if len(self._shown) < SHOWN:
            self._shown.append(problem)
        else:
            self._more += 1

    def raise_any(self) -> None:
        """Raises `DataError` with all of them; does nothing when there are none."""
        if not self._shown:
            return
        if not self._more:
            raise DataError(self._shown)
        plural = "problem" if self._more == 1 else "problems"
        rest = Problem(file=self._shown[0].file, reason=f"and {self._more:,} more {plural}")
        raise DataError([*self._shown, rest])
