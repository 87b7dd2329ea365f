"""What people see of a training run."""

import re
from types import SimpleNamespace

import pytest

from sftjob.train.ledger import Ledger, LedgerState, StepSums
from sftjob.train.progress import Progress

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
LOGS = {"loss": 1.2345, "learning_rate": 1e-4, "tokens_per_second": 812.4}


def _ledger() -> Ledger:
    now = [0.0]
    ledger = Ledger(LedgerState(train_rows=9), clock=lambda: now[0])
    now[0] = 0.42
    ledger.finish_step(20, StepSums(1.0, 1, 1, 1.0))
    return ledger


def _told(*, bar: bool) -> None:
    progress = Progress(_ledger(), bar=bar, memory=lambda: 3 * 2**29)
    state = SimpleNamespace(global_step=20, max_steps=120)
    progress.on_train_begin(None, SimpleNamespace(global_step=0, max_steps=120), None)
    progress.on_step_end(None, state, None)
    progress.on_log(None, state, None, logs=dict(LOGS))
    progress.on_log(None, state, None, logs={"train_runtime": 1.0})
    progress.on_evaluate(None, state, None, metrics={"eval_loss": 1.9})
    progress.on_save(None, state, None)
    progress.on_train_end(None, state, None)


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    _told(bar=False)
    assert capsys.readouterr().out.splitlines() == [
        "step 20/120 loss 1.2345 lr 1.0e-04 812 tok/s 1.5 GiB ETA 0:00:42",
        "step 20/120 held-out loss 1.9000",
        "step 20/120 checkpoint written",
    ]


def test_bar(capsys: pytest.CaptureFixture[str]) -> None:
    _told(bar=True)
    out = capsys.readouterr().out
    assert re.search(r"\rtraining: .*20/120 .*loss 1\.2345", out)
    assert "step 20/120 held-out loss 1.9000\n" in out
    assert "tok/s" not in out


def test_eta_counts_the_pauses(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = Progress(_ledger(), bar=False, clock=lambda: now[0], memory=lambda: 0)
    for step, seconds in ((20, 0.0), (30, 20.0)):
        now[0] = seconds
        progress.on_log(None, SimpleNamespace(global_step=step, max_steps=120), None, logs=dict(LOGS))
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("ETA 0:00:42")
    assert second.endswith("ETA 0:03:00")
