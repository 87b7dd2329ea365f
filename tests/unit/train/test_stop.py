import os
import signal

import pytest

from sftjob.train import stop as module
from sftjob.train.stop import Grace, Interrupted, StopRequest


@pytest.mark.parametrize(
    ("total", "terminate", "kill", "finish"),
    [(600, 555, 590, 597), (90, 45, 80, 87), (9, 4.5, 8, 8.7)],
)
def test_margins_shrink_with_a_short_grace_period(total: float, terminate: float, kill: float, finish: float) -> None:
    grace = Grace(total)
    assert (grace.terminate, grace.kill, grace.finish) == pytest.approx((terminate, kill, finish))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_asks_to_stop(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # nohup, around these tests, ignores some on purpose
    try:
        with StopRequest(Grace(600)) as stop:
            stop.check()
            os.kill(os.getpid(), number)
            assert stop.requested
            with pytest.raises(Interrupted):
                stop.check()
    finally:
        signal.signal(number, before)


def test_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest(Grace(600)):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_repeated_sigterm_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with StopRequest(Grace(600)) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        now[0] = 150.0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.seconds == 50
        assert not stop.hurried
        stop.check_time()


def test_a_second_ctrl_c_does_not_wait() -> None:
    with StopRequest(Grace(600)) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.hurried
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.hurried
        with pytest.raises(Interrupted):
            stop.check_time()


def test_what_a_shell_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest(Grace(600)) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGINT, before)


def test_time_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    stop = StopRequest(Grace(600))
    stop.check_time()
    stop.request()
    now[0] += 598
    with pytest.raises(Interrupted, match="grace period"):
        stop.check_time()
