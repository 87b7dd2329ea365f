"""Where metrics go besides the store, with a W&B that does what a test says."""

import errno
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sftjob.contract import ExitCode
from sftjob.errors import ConfigurationError
from sftjob.records import Metric
from sftjob.spec import Monitoring
from sftjob.train import sinks, worker
from sftjob.train.sinks import CLOSED, TensorBoard, Wandb, left_behind, require, scalars
from sftjob.train.workdir import RankResult
from tests.train.tiny import LORA
from tests.train.tiny import job as tiny_job

WANDB = Monitoring(report_to=("wandb",), wandb_project="p", wandb_entity="e")


class FakeWandb:
    """Keeps what it is told."""

    def __init__(self, trouble: Exception | None = None, block: threading.Event | None = None) -> None:
        self.settings: dict[str, Any] = {}
        self.logged: list[dict[str, float]] = []
        self.finished = False
        self._trouble = trouble
        self._block = block

    def init(self, **settings: Any) -> "FakeWandb":
        if self._block:
            self._block.wait()
        if self._trouble:
            raise self._trouble
        self.settings = settings
        return self

    offline = False
    url = "https://wandb.example/e/p/runs/tiny"

    def define_metric(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log(self, values: dict[str, float]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.finished = True


def line(step: int = 3) -> Metric:
    return Metric(
        attempt=1, step=step, epoch=0.5, loss=2.0, loss_hex="x", memory_bytes=7, gpu_power_watts=300.0, time="t"
    )


def test_curves_are_grouped() -> None:
    assert scalars(line()) == {
        "train/epoch": 0.5,
        "train/loss": 2.0,
        "machine/memory_bytes": 7.0,
        "machine/gpu_power_watts": 300.0,
    }


def test_one_wandb_run_for_all_attempts(tmp_path: Path) -> None:
    for attempt in (1, 2):
        fake = FakeWandb()
        sink = Wandb(WANDB, tiny_job(LORA), tmp_path, attempt, wandb=fake)
        sink.write(line())
        sink.close()
        assert (fake.settings["id"], fake.settings["resume"]) == ("tiny-00000000", "allow")
        assert (fake.settings["project"], fake.settings["entity"]) == ("p", "e")
        assert fake.settings["config"]["method"]["r"] == 4
        assert fake.logged == [{**scalars(line()), "step": 3}]
        assert fake.finished


def test_wandb_says_where_the_run_is_and_reports_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "")  # so that it is put back
    monkeypatch.delenv("WANDB_ERROR_REPORTING")
    fake = FakeWandb()
    Wandb(WANDB, tiny_job(LORA), tmp_path, 1, wandb=fake).close()
    assert capsys.readouterr().out == "wandb: https://wandb.example/e/p/runs/tiny\n"
    assert fake.settings["settings"] == {"console": "off", "silent": True}
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"


def test_wandb_trouble_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sink = Wandb(WANDB, tiny_job(LORA), tmp_path, 1, wandb=FakeWandb(OSError("no\nroute")))
    sink.write(line())
    sink.close()
    assert capsys.readouterr().out == "wandb: no route; training goes on without it\n"


def test_a_wandb_that_hangs_stalls_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sinks, "_QUEUE", 2)
    gate = threading.Event()
    sink = Wandb(WANDB, tiny_job(LORA), tmp_path, 1, wandb=FakeWandb(block=gate), close_seconds=0.01)
    try:
        sink.write(line())
        sink.close()
        assert "does not answer" in capsys.readouterr().out
        for step in range(5):
            sink.write(line(step))
        assert left_behind()
    finally:
        gate.set()
        sink._thread.join()


def test_a_rank_that_leaves_wandb_behind_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What W&B registers with `atexit` waits for its own process, and the supervisor for the rank."""
    done = RankResult(rank=0, exit_code=ExitCode.DONE, time="t")
    monkeypatch.setattr(worker, "die_with_parent", lambda: None)
    monkeypatch.setattr(worker, "run_rank", lambda *args, **kwargs: done)
    monkeypatch.setattr("signal.signal", lambda *args: None)
    monkeypatch.setattr("os._exit", lambda code: pytest.fail("an orderly end was possible"))
    monkeypatch.setattr(worker, "left_behind", lambda: False)
    assert worker.main(["--work", "w"]) == ExitCode.DONE
    ends: list[int] = []
    monkeypatch.setattr(worker, "left_behind", lambda: True)
    monkeypatch.setattr("os._exit", ends.append)
    worker.main(["--work", "w"])
    assert ends == [ExitCode.DONE]


@pytest.mark.parametrize("when", ["open", "write", "close"])
def test_a_full_disk_ends_tensorboard_alone(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    class Writer:
        add_scalar = staticmethod(fail if when == "write" else lambda *args: None)
        close = staticmethod(fail if when == "close" else lambda: None)

    module = SimpleNamespace(SummaryWriter=fail if when == "open" else lambda folder: Writer())
    monkeypatch.setattr(sinks, "import_module", lambda name: module)
    sink = TensorBoard(tmp_path)
    for step in range(3):
        sink.write(line(step))
    sink.close()
    sink.close()
    told = "tensorboard: [Errno 28] No space left on device; training goes on without it\n"
    assert capsys.readouterr().out == told
    assert not list((tmp_path / CLOSED).iterdir())


@pytest.mark.parametrize(
    ("installed", "environment", "told"),
    [
        (False, {"WANDB_API_KEY": "k"}, "pip install 'sftjob[wandb]'"),
        (True, {"NETRC": "/nowhere"}, "WANDB_API_KEY"),
    ],
    ids=["package", "key"],
)
def test_what_is_missing_is_told_at_once(
    installed: bool, environment: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    with pytest.raises(ConfigurationError) as caught:
        require(WANDB, environment)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", ["variable", "netrc", "offline"])
def test_a_key_may_come_three_ways(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password k\n")
    ways = {
        "variable": {"WANDB_API_KEY": "k", "NETRC": "/nowhere"},
        "netrc": {"NETRC": str(tmp_path / "netrc")},
        "offline": {"WANDB_MODE": "offline", "NETRC": "/nowhere"},
    }
    require(WANDB, ways[way])
