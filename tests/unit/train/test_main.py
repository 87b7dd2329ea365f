import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sftjob import container
from sftjob.contract import ExitCode
from sftjob.train import __main__ as program
from sftjob.train.verdict import Verdict


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sftjob.train", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def test_a_mistake_is_one_line_and_its_code(tmp_path: Path) -> None:
    done = run("--spec", str(tmp_path / "nowhere.json"), "--work", str(tmp_path / "work"))
    assert done.returncode == ExitCode.INPUT
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {tmp_path / 'nowhere.json'}: the spec cannot be read")


def test_a_wrong_variable_is_one_line_and_its_code(tmp_path: Path) -> None:
    done = run("--work", str(tmp_path), SFTJOB_GRACE_SECONDS="soon")
    assert (done.returncode, done.stderr) == (
        ExitCode.SPEC,
        "error: SFTJOB_GRACE_SECONDS: 'soon' is not a number of 0 or more; repair or unset the variable\n",
    )


def test_the_supervisor_leaves_heavy_libraries_out() -> None:
    heavy = ("torch", "transformers", "trl", "peft", "datasets", "pyarrow", "boto3", "kubernetes", "huggingface_hub")
    code = f"import sys, sftjob.train.__main__; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The attempt ends with a data error; the file is Kubernetes' termination log."""
    verdict = Verdict(ExitCode.DATA, "train.jsonl:3: not JSON\ntrain.jsonl:9: " + 'é"' * 5000, 4)
    monkeypatch.setattr(program, "supervise", lambda _settings: verdict)
    monkeypatch.setattr(container, "TERMINATION_LOG", tmp_path / "termination-log")
    return tmp_path / "termination-log"


def test_the_reason_is_left_where_kubernetes_looks_for_it(outcome: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome.touch()
    assert program.main([]) is ExitCode.DATA
    message = json.loads(outcome.read_text())
    assert (message["exit_code"], message["step"]) == (65, 4)
    assert message["reason"].startswith("train.jsonl:3: not JSON")
    assert len(outcome.read_bytes()) <= 4096
    assert capsys.readouterr().err.startswith("error: train.jsonl:3: not JSON\nerror: train.jsonl:9: ")


def test_no_termination_log_is_made_where_there_is_none(outcome: Path) -> None:
    program.main([])
    assert not outcome.exists()
