import logging
from dataclasses import dataclass, field

import pytest

from sftjob.errors import Denied, Unavailable
from sftjob.storage.retry import Patience


@dataclass
class Clock:
    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def patience(clock: Clock) -> Patience:
    return Patience(deadline_seconds=80, clock=lambda: clock.now, sleep=clock.sleep)


def _failing(times: int) -> "list[Unavailable | str]":
    return [*(Unavailable(f"503 number {number}", file="s3://b/k", hint="wait") for number in range(times)), "answer"]


def _play(script: "list[Unavailable | str]") -> str:
    step = script.pop(0)
    if isinstance(step, Unavailable):
        raise step
    return step


def test_burst_passes(patience: Patience, clock: Clock) -> None:
    script = _failing(8)

    assert patience.run(lambda: _play(script)) == "answer"
    assert len(clock.slept) == 8
    assert all(later > earlier for earlier, later in zip(clock.slept[:-2:2], clock.slept[2::2], strict=False))


def test_outage_ends_at_the_deadline(patience: Patience, clock: Clock) -> None:
    script = _failing(1000)

    with pytest.raises(Unavailable, match=r"s3://b/k: 503 number \d+ \(\d+ tries in \d+ s\); wait") as error:
        patience.run(lambda: _play(script))
    assert 60 < clock.now <= 80
    assert f"{len(clock.slept) + 1} tries" in str(error.value)


def test_refusal_is_not_asked_again(patience: Patience, clock: Clock) -> None:
    def refused() -> None:
        raise Denied("no")

    with pytest.raises(Denied):
        patience.run(refused)
    assert clock.slept == []


def test_waiting_is_told_but_not_at_every_try(patience: Patience, caplog: pytest.LogCaptureFixture) -> None:
    script = _failing(12)
    with caplog.at_level(logging.WARNING):
        patience.run(lambda: _play(script))

    assert "503 number 1" in caplog.records[0].message
    assert 1 < len(caplog.records) <= 3
