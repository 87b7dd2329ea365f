"""Requests to stop, and how the grace period is divided once there is one."""

import signal
import time
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Final, Self

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interrupted(Exception):
    """Somebody asked the attempt to stop before it had anything to save, or before it had saved it."""


@dataclass(frozen=True)
class Grace:
    """When what happens, in seconds after the request to stop.

    Below a grace period of 90 seconds the margins shrink with it.
    """

    total: float
    """The pod's terminationGracePeriodSeconds; after it the kernel kills us."""

    @property
    def terminate(self) -> float:
        """Time for SIGTERM to torchrun, which needs 30 s to give up on its ranks."""
        return self.total - min(45.0, self.total / 2)

    @property
    def kill(self) -> float:
        """Ranks that have not saved by now will not."""
        return self.total - min(10.0, self.total / 9)

    @property
    def finish(self) -> float:
        """Whatever is still on its way to the store is given up."""
        return self.total - min(3.0, self.total / 30)


@dataclass
class StopRequest:
    """Installs signal handlers while entered. SIGTERM, SIGINT and SIGHUP ask for a save; more of them change nothing.

    Only a second SIGINT does: a person who presses Ctrl-C twice does not want to wait for the save.
    """

    grace: Grace
    _at: float | None = None
    _interrupts: int = 0
    _before: dict[int, signal.Handlers] = field(default_factory=dict)

    @property
    def requested(self) -> bool:
        return self._at is not None

    @property
    def hurried(self) -> bool:
        """Nobody waits any longer."""
        return self._interrupts > 1

    @property
    def seconds(self) -> float:
        """Since the request; 0 without one."""
        return 0.0 if self._at is None else time.monotonic() - self._at

    @property
    def out_of_time(self) -> bool:
        """Nothing more can be saved."""
        return self.hurried or self.seconds > self.grace.finish

    def request(self) -> None:
        """As a signal would."""
        self._at = self._at or time.monotonic()

    def check(self) -> None:
        """Raises `Interrupted` once there is a request."""
        if self.requested:
            raise Interrupted("stopped before training began")

    def check_time(self) -> None:
        """Raises `Interrupted` once nothing more can be saved."""
        if self.out_of_time:
            raise Interrupted("the grace period ended before everything was in the store")

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            # nohup and background jobs of a shell ignore some of these on purpose; SIGTERM always counts.
            if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.request()
        self._interrupts += number == signal.SIGINT
