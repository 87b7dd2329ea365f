"""The GPU benchmark, kept running by its tiny shape."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
SCRIPT = Path(__file__).parents[2] / "benchmarks/train_8b.py"


def test_every_arm_is_in_the_table() -> None:
    options = ["--shape", "tiny", "--steps", "1", "--rounds", "1", "--methods", "full", "lora", "--length", "64"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr
    rows = [
        line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith(("| equal", "| chat"))
    ]
    assert [tuple(row[:3]) for row in rows] == [
        (kind, method, trainer)
        for kind in ("equal", "chat")
        for method in ("full", "lora")
        for trainer in ("sftjob", "plain")
    ]
    assert all(0 < float(row[6]) < 1.5 for row in rows)
    assert [row[9] for row in rows if row[2] == "plain"] == ["1.00"] * 4
    assert "x plain >= 1.35" in done.stdout
