"""The worker as a process: what reaches it from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.train import tiny

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]

PARENT = """
import json, subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "sftjob.train.worker", "--work", sys.argv[1]], stdin=subprocess.DEVNULL)
print(json.dumps(child.pid), flush=True)
child.wait()
"""


def test_ignores_ctrl_c_and_dies_with_its_parent(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
    work = tiny.prepare(tmp_path, tiny.job(logging_steps=1), model=tiny_model, data=tiny_data)
    environment = {**os.environ, "SFTJOB_FAULT": "step:sleep:2", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(work.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as parent:
        assert parent.stdout is not None
        worker = json.loads(parent.stdout.readline())
        try:
            tiny.wait_for(work.metrics)
            ignored = _ignored_signals(worker)
        finally:
            parent.kill()
    _wait_until_gone(worker)
    assert ignored & 1 << (signal.SIGINT - 1)
    assert not ignored & 1 << (signal.SIGTERM - 1)
    assert not work.result(0).exists()


def _ignored_signals(pid: int) -> int:
    """Bit n - 1 is set when signal n is ignored (proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("SigIgn:")).split()[1], 16)


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while (status := Path(f"/proc/{pid}/status")).exists() and "State:\tZ" not in status.read_text():
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            pytest.fail(f"process {pid} outlived its parent")
        time.sleep(0.05)
