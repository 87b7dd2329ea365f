import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from sftjob.app.phase import run_phase


@pytest.fixture
def phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


class TestRunPhase:
    @pytest.mark.parametrize(
        ("code", "expected"),
        [("raise SystemExit(0)", 0), ("raise SystemExit(75)", 75), ("import os; os.kill(os.getpid(), 9)", 137)],
        ids=["done", "interrupted", "killed"],
    )
    def test_returns_the_exit_code(self, phases: Path, code: str, expected: int) -> None:
        (phases / "phase.py").write_text(code)
        assert run_phase("phase", os.environ) == expected

    @pytest.mark.parametrize(
        ("sent", "received"), [("SIGINT", "SIGINT"), ("SIGTERM", "SIGTERM"), ("SIGHUP", "SIGTERM")]
    )
    def test_passes_signals_on_once(self, phases: Path, sent: str, received: str) -> None:
        (phases / "phase.py").write_text(
            textwrap.dedent("""
                import pathlib, signal, sys, time
                got = []
                for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                    signal.signal(getattr(signal, name), lambda number, _: got.append(signal.Signals(number).name))
                pathlib.Path("ready").touch()
                end = time.monotonic() + 20
                while not got and time.monotonic() < end:
                    time.sleep(0.01)
                time.sleep(0.2)
                pathlib.Path("got").write_text(" ".join(got))
                sys.exit(75)
            """)
        )
        parent = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import os,sys; from sftjob.app.phase import run_phase; sys.exit(run_phase('phase', os.environ))",
            ],
            cwd=phases,
            start_new_session=True,
        )
        wait_for(phases / "ready")
        # To the whole foreground group, as a terminal does it.
        os.killpg(parent.pid, getattr(signal, sent))
        assert parent.wait(timeout=20) == 75
        assert (phases / "got").read_text() == received


def wait_for(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f"{path} never appeared"
        time.sleep(0.01)
