"""How long and how often a store is asked again before a request counts as failed."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from sftjob.errors import Unavailable

T = TypeVar("T")
_log = logging.getLogger(__name__)
_TELL_EVERY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Tries again with growing, jittered delays until a deadline; no try begins after it.

    A burst of errors of a minute passes, and with the request timeouts of `s3` a dead store is reported within two.
    """

    deadline_seconds: float = 80.0
    first_delay_seconds: float = 0.2
    max_delay_seconds: float = 10.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def run(self, attempt: Callable[[], T]) -> T:
        """Calls `attempt` until it raises no `Unavailable`; every other error passes through at once.

        Raises:
            Unavailable: the last one, with the number of tries, when the deadline has passed.
        """
        begin = told = self.clock()
        tries = 0
        while True:
            tries += 1
            try:
                return attempt()
            except Unavailable as error:
                delay = self._delay(tries)
                spent = self.clock() - begin
                if spent + delay > self.deadline_seconds:
                    raise _after(error, tries, spent) from error
                if tries == 2 or self.clock() - told > _TELL_EVERY_SECONDS:
                    told = self.clock()
                    _log.warning("%s; trying again for %.0f s", error, self.deadline_seconds - spent)
            self.sleep(delay)

    def _delay(self, tries: int) -> float:
        # Jitter keeps the pods of a gang from asking in step; half of it is fixed so that tries stay few.
        ceiling: float = min(self.max_delay_seconds, self.first_delay_seconds * 2 ** (tries - 1))
        return ceiling * random.uniform(0.5, 1.0)


def _after(error: Unavailable, tries: int, seconds: float) -> Unavailable:
    times = "try" if tries == 1 else "tries"
    return Unavailable(
        replace(problem, reason=f"{problem.reason} ({tries} {times} in {seconds:.0f} s)") for problem in error.problems
    )
