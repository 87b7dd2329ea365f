import errno

import pytest

from sftjob.contract import ExitCode, JobAction
from sftjob.errors import ConfigurationError, Denied, StorageError
from sftjob.train.stop import Interrupted
from sftjob.train.verdict import RankEnd, Verdict, judge, strongest, verdict_of
from sftjob.train.workdir import RankResult

SAVED = {ExitCode.INTERRUPTED, ExitCode.WALLTIME}


def ended(rank: int, code: int, *, reason: str = "", step: int = 8, time: str = "2026-01-01T00:00:00+00:00") -> RankEnd:
    result = RankResult(rank=rank, exit_code=code, reason=reason, step=step, time=time)
    return RankEnd(rank, result, exit_code=code)


def lost(rank: int, exit_code: int | None) -> RankEnd:
    return RankEnd(rank, None, exit_code)


def verdict(*ends: RankEnd, committed: int | None = None, stopped: bool = False, exported: bool = False) -> Verdict:
    return judge(ends, committed=committed, stopped=stopped, exported=exported)


@pytest.mark.parametrize("code", [code for code in ExitCode if code is not ExitCode.DONE])
def test_a_single_rank_s_code_is_the_attempt_s_code(code: ExitCode) -> None:
    assert verdict(ended(0, code, reason="why"), committed=8) == Verdict(code, "why", 8)


def test_every_rank_done_and_exported_is_done() -> None:
    assert verdict(ended(0, 0), ended(1, 0), exported=True) == Verdict(ExitCode.DONE, step=8)


def test_done_without_an_export_is_a_crash() -> None:
    assert verdict(ended(0, 0)).code is ExitCode.CRASH


@pytest.mark.parametrize("strong", list(ExitCode))
@pytest.mark.parametrize("weak", list(ExitCode))
def test_permanent_beats_interrupted_beats_crash(strong: ExitCode, weak: ExitCode) -> None:
    order = [JobAction.FAIL_JOB, JobAction.IGNORE, JobAction.COUNT]
    if order.index(strong.action) >= order.index(weak.action) or ExitCode.DONE in (strong, weak):
        return
    earlier, later = "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:09+00:00"
    found = verdict(ended(0, weak, reason="noise", time=earlier), ended(1, strong, reason="x", time=later), committed=8)
    saved = weak in SAVED and strong is ExitCode.INTERRUPTED_UNSAVED
    assert found.code is (ExitCode.INTERRUPTED if saved else strong)
    assert found.reason == "rank 1 x"


def test_a_rank_that_failed_beats_those_that_are_done() -> None:
    assert verdict(ended(0, 0), ended(1, 70, reason="died"), exported=True) == Verdict(ExitCode.CRASH, "rank 1 died", 8)


def test_the_first_error_in_time_is_the_cause() -> None:
    noise = ended(0, 70, reason="Connection closed by peer", time="2026-01-01T00:00:05+00:00")
    cause = ended(1, 70, reason="index out of range", time="2026-01-01T00:00:01+00:00")
    assert verdict(noise, cause).reason == "rank 1 index out of range"


def test_a_rank_killed_out_of_the_blue_is_the_cause_of_its_peers_errors() -> None:
    noise = ended(0, 70, reason="Connection closed by peer")
    assert verdict(noise, lost(1, -9)).reason == "rank 1 was killed by signal 9 (out of memory?)"


def test_a_rank_that_torchrun_ended_is_not_the_cause() -> None:
    assert verdict(lost(0, -15), ended(1, 70, reason="boom")).reason == "rank 1 boom"


@pytest.mark.parametrize(
    ("exit_code", "reason"),
    [
        (-9, "was killed by signal 9 (out of memory?)"),
        (-11, "was killed by signal 11 (SIGSEGV)"),
        (-99, "was killed by signal 99 (unknown)"),
        (3, "ended with code 3 and left no result; see the log"),
        (0, "left no result; see the log"),
        (None, "left no result; see the log"),
    ],
)
def test_a_rank_without_a_result_is_a_crash_that_says_how(exit_code: int | None, reason: str) -> None:
    assert verdict(lost(0, exit_code), exported=True) == Verdict(ExitCode.CRASH, reason)


@pytest.mark.parametrize("code", sorted(SAVED))
@pytest.mark.parametrize("committed", [None, 7])
def test_saved_is_said_only_of_a_committed_step(code: ExitCode, committed: int | None) -> None:
    found = verdict(ended(0, code, reason="stopped at step 8"), committed=committed)
    assert found == Verdict(ExitCode.INTERRUPTED_UNSAVED, "stopped at step 8; step 8 did not reach the store", 8)


def test_a_rank_killed_at_the_end_of_the_grace_period_has_not_saved() -> None:
    assert verdict(lost(0, -9), committed=4, stopped=True).code is ExitCode.INTERRUPTED_UNSAVED


def test_a_rank_that_hangs_after_its_step_was_committed_loses_nothing() -> None:
    assert verdict(ended(0, 75), lost(1, -9), committed=8, stopped=True).code is ExitCode.INTERRUPTED


def test_an_unknown_code_is_a_crash() -> None:
    assert verdict(ended(0, 3, reason="who knows")).code is ExitCode.CRASH


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("no", field="a"), ExitCode.CONFIGURATION),
        (Denied("no"), ExitCode.CREDENTIALS),
        (StorageError("no"), ExitCode.STORAGE),
        (Interrupted("no"), ExitCode.INTERRUPTED_UNSAVED),
        (OSError(errno.ENOSPC, "full", "/x"), ExitCode.DISK_FULL),
    ],
)
def test_an_expected_error_has_its_code_and_no_traceback(
    error: Exception, code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verdict_of(error).code is code
    assert capsys.readouterr().err == ""


def test_a_bug_is_a_crash_with_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    found = verdict_of(ZeroDivisionError("x"))
    assert found == Verdict(ExitCode.CRASH, "internal error: ZeroDivisionError: x")
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_strongest_view_speaks_first() -> None:
    done, crash = Verdict(ExitCode.DONE, step=8), Verdict(ExitCode.CRASH, "killed", 8)
    storage, unsaved = Verdict(ExitCode.STORAGE, "no answer"), Verdict(ExitCode.INTERRUPTED_UNSAVED, "late")
    diverged, superseded = Verdict(ExitCode.DIVERGED, "nan"), Verdict(ExitCode.SUPERSEDED, "newer")
    assert strongest(done, done) == done
    assert strongest(done, storage) == storage
    assert strongest(crash, storage) == Verdict(ExitCode.CRASH, "killed; no answer", 8)
    assert strongest(storage, unsaved) == Verdict(ExitCode.INTERRUPTED_UNSAVED, "late; no answer")
    assert strongest(unsaved, diverged).code is ExitCode.DIVERGED
    assert strongest(diverged, superseded).code is ExitCode.SUPERSEDED
