"""The audit of real files, beside the counts of a script that shares no line with the package."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sftjob.cli import main

pytestmark = pytest.mark.train
SHARED = Path(__file__).resolve().parents[3] / "shared"
SCRIPT = Path(__file__).resolve().parent.parent / "independent_audit.py"
GSM8K = ("--column", "prompt=question", "--column", "completion=answer")
FILES = {
    "gsm8k_train.jsonl": (GSM8K, 512),
    "gsm8k_test.jsonl": (GSM8K, 256),
    "alpaca_en.json": ((), 512),
    "glaive_toolcall_en.json": ((), 1024),
}


@pytest.fixture
def model() -> Path:
    folder = SHARED / "models" / "tiny-base"
    if not folder.is_dir():
        pytest.skip("no ../shared/models/tiny-base beside the repository")
    return folder


@pytest.mark.parametrize("name", FILES)
def test_on_real_files(
    name: str, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, (options, max_length) = SHARED / "data" / name, FILES[name]
    limits = ["--max-length", str(max_length)]
    given = ["audit", str(file), *options, "--model", str(model), "--template", "chatml", *limits, "--json"]
    monkeypatch.setattr(sys, "argv", ["sftjob", "data", *given])
    main_ends_well()
    audited = json.loads(capsys.readouterr().out)["splits"]["train"]
    assert independent(file, model, max_length) == {
        "messages_by_role": audited["messages_by_role"],
        **{key: audited[key] for key in ("duplicates", "trained_turns", "trained_ends")},
        **{key: value for key, value in audited["counts"].items() if value},
    }


def main_ends_well() -> None:
    try:
        main()
    except SystemExit as leave:
        assert not leave.code  # noqa: PT017 - this is how a command line ends


def independent(file: Path, model: Path, max_length: int) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPT), str(file), str(model / "tokenizer.json"), str(max_length)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    counts: dict[str, Any] = json.loads(done.stdout)
    return {key: value for key, value in counts.items() if value or key == "duplicates"}
