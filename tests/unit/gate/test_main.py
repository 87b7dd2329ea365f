"""The gate's process: what it reads, with what it ends, and what it leaves for `kubectl describe`."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sftjob import container
from sftjob.contract import Env, ExitCode
from sftjob.errors import SpecError
from sftjob.gate import __main__ as gate
from sftjob.gate.loop import Ending
from sftjob.gate.settings import read_settings

SPEC = {
    "name": "demo",
    "model": {"uri": "s3://models/tiny"},
    "data": {"train": [{"uri": "s3://data/train.jsonl"}]},
    "method": {"type": "lora"},
}
POD = {Env.TRAIN.value: "job/demo-train", Env.EVAL.value: "demo-eval", Env.NAMESPACE.value: "ml"}


class TestSettings:
    def test_are_read_from_the_pod(self) -> None:
        settings = read_settings({**POD, Env.TRAIN.value: "jobset/demo-train", Env.QUEUE.value: "team"})

        assert (settings.engine, settings.train, settings.evaluation) == ("jobset", "demo-train", "demo-eval")
        assert (settings.namespace, settings.queue, settings.look_seconds) == ("ml", "team", 10)
        assert str(settings.spec) == "/etc/sftjob/spec.json"

    @pytest.mark.parametrize("name", POD)
    def test_a_missing_variable_is_named(self, name: str) -> None:
        with pytest.raises(SpecError, match=f"^{name}: is not set"):
            read_settings({**POD, name: ""})

    @pytest.mark.parametrize("train", ["demo-train", "pod/demo", "job/", "/demo"])
    def test_training_is_a_job_or_a_jobset(self, train: str) -> None:
        with pytest.raises(SpecError, match=f"^{Env.TRAIN}: '{train}' names no training; write job/NAME"):
            read_settings({**POD, Env.TRAIN.value: train})

    @pytest.mark.parametrize("seconds", [0, -1, 3601, float("nan")])
    def test_looks_are_seconds_apart(self, seconds: float) -> None:
        with pytest.raises(SpecError, match="--look-seconds"):
            read_settings(POD, look_seconds=seconds)


class TestEnds:
    @pytest.fixture
    def message(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        path = tmp_path / "termination-log"
        path.touch()
        monkeypatch.setattr(container, "TERMINATION_LOG", path)
        for name, value in {**POD, Env.SPEC.value: str(tmp_path / "spec.json")}.items():
            monkeypatch.setenv(name, value)
        return path

    def test_with_the_verdict_of_the_loop(self, message: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gate, "_watched", lambda _: Ending(ExitCode.DONE, "the evaluation is complete"))

        assert gate.main([]) is ExitCode.DONE
        assert json.loads(message.read_text()) == {"exit_code": 0, "reason": "the evaluation is complete", "step": None}

    def test_a_long_reason_still_fits(self, message: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gate, "_watched", lambda _: Ending(ExitCode.INPUT, '"' * 9000))

        assert gate.main([]) is ExitCode.INPUT
        assert len(message.read_bytes()) <= 4096
        assert json.loads(message.read_text())["exit_code"] == 66

    def test_without_a_spec(self, message: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert gate.main([]) is ExitCode.INPUT
        assert "the spec cannot be read: No such file or directory" in capsys.readouterr().err
        assert json.loads(message.read_text())["exit_code"] == 66

    def test_without_a_store(self, message: Path, capsys: pytest.CaptureFixture[str]) -> None:
        Path(os.environ[Env.SPEC]).write_text(json.dumps(SPEC))

        assert gate.main([]) is ExitCode.SPEC
        assert capsys.readouterr().err == (
            "error: storage.uri: no store is named; write s3://bucket/prefix or a folder into spec or profile\n"
        )

    def test_a_bug_is_a_crash_with_its_traceback(
        self, message: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def bug(_: Any) -> Ending:
            raise ZeroDivisionError("oh")

        monkeypatch.setattr(gate, "_watched", bug)

        assert gate.main([]) is ExitCode.CRASH
        assert "ZeroDivisionError: oh" in capsys.readouterr().err
        assert json.loads(message.read_text())["reason"] == "ZeroDivisionError: oh"


def test_a_signal_ends_the_process_with_75_in_the_midst_of_an_outage(tmp_path: Path) -> None:
    """Its API server is a port that nobody serves."""
    spec, config = tmp_path / "spec.json", tmp_path / "kubeconfig"
    spec.write_text(json.dumps(SPEC | {"storage": {"uri": str(tmp_path / "store")}}))
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "c"}}
    written = {
        "clusters": [cluster],
        "contexts": [context],
        "users": [{"name": "c", "user": {}}],
        "current-context": "c",
    }
    config.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **written}))
    environment = {**os.environ, **POD, Env.SPEC.value: str(spec), "KUBECONFIG": str(config)}
    command = [sys.executable, "-m", "sftjob.gate", "--look-seconds", "0.1"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("asking again: ")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)

    assert process.returncode == ExitCode.INTERRUPTED
    assert errors == "error: the gate was stopped; its next pod goes on\n"
