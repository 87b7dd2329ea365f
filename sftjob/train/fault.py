"""Faults that tests inject into real processes; inert unless `SFTJOB_FAULT` is set, which only tests do.

`point:action:nth[:rank]`: at the nth time that this process reaches `point` (counting from 1), on that rank (all
without one), it is killed, raises `InjectedFault`, or sleeps for an hour.
"""

import os
import signal
import time
from collections import Counter
from typing import Final

from sftjob.contract import Env
from sftjob.errors import ConfigurationError

_SECONDS_ASLEEP: Final = 3600
_reached: Final[Counter[str]] = Counter()


class InjectedFault(Exception):
    """What the action `raise` raises."""


def fault(point: str) -> None:
    """Marks a place where a test may strike.

    Raises:
        InjectedFault: a test asked for it.
        ConfigurationError: SFTJOB_FAULT cannot be read.
    """
    wanted = os.environ.get(Env.FAULT)
    if wanted is None:
        return
    name, action, nth, rank = _parse(wanted)
    if name != point or rank not in (None, os.environ.get("RANK", "0")):
        return
    _reached[point] += 1
    if _reached[point] == nth:
        _strike(point, action)


def _parse(wanted: str) -> tuple[str, str, int, str | None]:
    parts = wanted.split(":")
    if len(parts) not in (3, 4) or parts[1] not in ("kill", "raise", "sleep") or not parts[2].isdigit():
        raise ConfigurationError(
            f"{wanted!r} is not point:kill|raise|sleep:nth[:rank]", field=Env.FAULT, hint="unset it: it is for tests"
        )
    return parts[0], parts[1], int(parts[2]), parts[3] if len(parts) == 4 else None


def _strike(point: str, action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "sleep":
        time.sleep(_SECONDS_ASLEEP)
    else:
        raise InjectedFault(f"injected at {point}")
