"""Starts a phase of a run as the container would be started, and passes signals on to it."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Final

_FORWARDED: Final = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    # The terminal is gone: save and stop, as a pod would.
    signal.SIGHUP: signal.SIGTERM,
}


def run_phase(module: str, environment: Mapping[str, str]) -> int:
    """Runs `python -m module` to its end.

    The phase has a session of its own, so that a Ctrl-C reaches only us and is passed on once: a phase takes a second
    one as an order to stop without saving.

    Returns:
        Its exit code; 128 + n when signal n killed it.
    """
    command = [sys.executable, "-m", module]
    with subprocess.Popen(command, env=dict(environment), start_new_session=True) as phase, _forwarded_to(phase):
        code = phase.wait()
    return code if code >= 0 else 128 - code


@contextmanager
def _forwarded_to(phase: "subprocess.Popen[bytes]") -> Iterator[None]:
    def forward(number: int, _frame: FrameType | None) -> None:
        if phase.poll() is None:
            phase.send_signal(_FORWARDED[signal.Signals(number)])

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
