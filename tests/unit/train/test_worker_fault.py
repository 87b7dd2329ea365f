import os
import subprocess
import sys

import pytest

from sftjob.errors import ConfigurationError
from sftjob.train import fault as module
from sftjob.train.fault import InjectedFault, fault


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    module._reached.clear()


def test_inert_without_the_variable() -> None:
    fault("step")


def test_strikes_at_the_nth_time_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFTJOB_FAULT", "step:raise:2")
    fault("step")
    fault("saved")
    with pytest.raises(InjectedFault, match="injected at step"):
        fault("step")
    fault("step")


@pytest.mark.parametrize(("rank", "struck"), [("1", True), ("0", False), (None, False)])
def test_strikes_one_rank(rank: str | None, struck: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFTJOB_FAULT", "step:raise:1:1")
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    if struck:
        with pytest.raises(InjectedFault):
            fault("step")
    else:
        fault("step")


def test_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    monkeypatch.setenv("SFTJOB_FAULT", "step:sleep:1")
    fault("step")
    assert slept == [3600]


def test_kills() -> None:
    code = "from sftjob.train.fault import fault; fault('saved'); fault('saved')"
    environment = {**os.environ, "SFTJOB_FAULT": "saved:kill:2"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -9


@pytest.mark.parametrize("wanted", ["step", "step:explode:1", "step:kill:x", "step:kill:1:0:0", ""])
def test_what_cannot_be_read(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFTJOB_FAULT", wanted)
    with pytest.raises(ConfigurationError, match="SFTJOB_FAULT"):
        fault("step")
