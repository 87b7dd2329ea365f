"""Work that may block for long, in a thread that can be left behind."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """One call in a daemon thread. Its owner watches it and may leave it: the process ends by `os._exit`.

    Signal handlers run only between the main thread's own steps, and a download cannot be interrupted from outside, so
    the main thread waits here in small steps instead.
    """

    def __init__(self, call: Callable[[], T], name: str) -> None:
        self._call = call
        self._done = threading.Event()
        self._value: list[T] = []
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def check(self) -> None:
        """Raises what has ended the call, if anything has."""
        if self._error is not None:
            raise self._error

    def wait(self, *checks: Callable[[], None], every: float = 0.05) -> T:
        """The call's value or error. `checks` are called every `every` seconds; what they raise ends the waiting."""
        while not self._done.wait(every):
            for check in checks:
                check()
        self.check()
        return self._value[0]

    def _run(self) -> None:
        try:
            self._value.append(self._call())
        except BaseException as error:  # handed to the thread that waits
            self._error = error
        finally:
            self._done.set()
