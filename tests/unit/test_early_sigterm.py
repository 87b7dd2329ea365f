"""PID 1 has no default action for SIGTERM, so what comes during the imports would be lost."""

import os
import subprocess
import sys

import pytest

# Sends the signal when the module imports something of its own that comes late.
DURING_IMPORT = """
import builtins, os, runpy, signal, sys
module, late = sys.argv[1:3]
del sys.argv[1:]
imports = builtins.__import__
def imported(name, *rest, **more):
    if name == late:
        os.kill(os.getpid(), signal.SIGTERM)
    return imports(name, *rest, **more)
builtins.__import__ = imported
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("module", "late", "code"),
    [
        ("sftjob.train", "sftjob.train.supervisor", 76),
        ("sftjob.gate", "sftjob.gate.loop", 75),
        ("sftjob.app.evaluation", "sftjob.app.evaluation_inputs", 75),
    ],
)
def test_ends_as_an_interruption(module: str, late: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DURING_IMPORT, module, late],
        capture_output=True,
        check=False,
        timeout=120,
        env={**os.environ, "SFTJOB_SPEC": "/nowhere"},
    )

    assert done.returncode == code, done.stderr
