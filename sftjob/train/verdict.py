"""How an attempt ends: one exit code and one line, from what the ranks say and from how they died."""

import errno
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from sftjob.contract import ExitCode, JobAction
from sftjob.errors import SftjobError
from sftjob.train.stop import Interrupted
from sftjob.train.workdir import RankResult

_SAVED: Final = frozenset({ExitCode.INTERRUPTED, ExitCode.WALLTIME})
"""Codes that promise that the progress is in the store."""
_STRENGTH: Final = (JobAction.FAIL_JOB, JobAction.IGNORE, JobAction.COUNT)
"""Permanent before interrupted before crash: an eviction makes its peers crash, a wrong spec makes them wait."""


@dataclass(frozen=True)
class Verdict:
    """How an attempt, or one rank of it, ended."""

    code: ExitCode
    reason: str = ""
    """One line for people; empty when all is well."""
    step: int | None = None
    """Last finished optimizer step, where a rank has told it."""


class Judged(Exception):
    """The attempt has ended elsewhere; what remains is to stop and to say the same."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


@dataclass(frozen=True)
class RankEnd:
    """What is known of one rank after its end."""

    rank: int
    result: RankResult | None
    """None: the rank left no result."""
    exit_code: int | None = None
    """Of its process; negative for a signal; None when nobody saw it."""

    @property
    def orderly(self) -> bool:
        """It trained to the end, or stopped together with all the others."""
        return self.result is not None and self.result.exit_code in (ExitCode.DONE, *_SAVED)


def judge(ends: Sequence[RankEnd], *, committed: int | None, stopped: bool, exported: bool) -> Verdict:
    """The verdict over all ranks: permanent > interrupted > crash > done, and within a class the first in time.

    Args:
        ends: every rank of this node, at least one.
        committed: newest step whose COMMIT is in the store; None without one.
        stopped: somebody asked the attempt to stop, so a rank without a result was killed for that.
        exported: the final weights are complete on disk.
    """
    step = max((end.result.step for end in ends if end.result), default=None)
    verdicts = [(end, _verdict(end, stopped=stopped)) for end in ends]
    failed = [(end, verdict) for end, verdict in verdicts if verdict.code is not ExitCode.DONE]
    if not failed:
        if exported:
            return Verdict(ExitCode.DONE, step=step)
        return Verdict(ExitCode.CRASH, "the ranks ended without an export; see the log", step)
    cause_end, cause = min(failed, key=lambda pair: (_STRENGTH.index(pair[1].code.action), _moment(pair[0])))
    named = cause if len(ends) == 1 else replace(cause, reason=f"rank {cause_end.rank} {cause.reason}")
    saved = max((verdict.step or 0 for _, verdict in failed if verdict.code in _SAVED), default=None)
    return replace(_kept_promise(named, saved, committed), step=step)


def verdict_of(error: BaseException) -> Verdict:
    """The verdict for an attempt that `error` ended. A bug's traceback goes to stderr: it is for us, not for users."""
    if isinstance(error, SftjobError):
        return Verdict(error.exit_code, str(error))
    if isinstance(error, Judged):
        return error.verdict
    if isinstance(error, Interrupted):
        return Verdict(ExitCode.INTERRUPTED_UNSAVED, str(error))
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" at {error.filename}" if error.filename else ""
        return Verdict(ExitCode.DISK_FULL, f"no space left{where}; give the job more ephemeral storage")
    traceback.print_exception(error, file=sys.stderr)
    return Verdict(ExitCode.CRASH, f"internal error: {type(error).__name__}: {error}")


def strongest(*verdicts: Verdict) -> Verdict:
    """Of several views of one attempt, with the other reasons behind its own; the first one of equals.

    A newer attempt's existence outweighs everything; success outweighs nothing.
    """

    def rank(verdict: Verdict) -> int:
        if verdict.code is ExitCode.SUPERSEDED:
            return -1
        return len(_STRENGTH) if verdict.code is ExitCode.DONE else _STRENGTH.index(verdict.code.action)

    ordered = sorted(verdicts, key=rank)
    reasons = dict.fromkeys(verdict.reason for verdict in ordered if verdict.reason)
    return replace(ordered[0], reason="; ".join(reasons))


def _verdict(end: RankEnd, *, stopped: bool) -> Verdict:
    if end.result is not None:
        code = known_code(end.result.exit_code)
        return Verdict(code, end.result.reason or code.meaning, end.result.step)
    if stopped:
        return Verdict(ExitCode.INTERRUPTED_UNSAVED, "did not save in time")
    if end.exit_code is None or end.exit_code == 0:
        return Verdict(ExitCode.CRASH, "left no result; see the log")
    if end.exit_code > 0:
        return Verdict(ExitCode.CRASH, f"ended with code {end.exit_code} and left no result; see the log")
    guess = "out of memory?" if -end.exit_code == signal.SIGKILL else _signal_name(-end.exit_code)
    return Verdict(ExitCode.CRASH, f"was killed by signal {-end.exit_code} ({guess})")


def known_code(code: int) -> ExitCode:
    """The exit code of a stored result; another version may know others."""
    try:
        return ExitCode(code)
    except ValueError:
        return ExitCode.CRASH


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _moment(end: RankEnd) -> tuple[int, str, int]:
    """Sorts ends by time. A rank that was killed out of the blue comes first: its peers' errors follow from that."""
    if end.result is not None:
        return 1, end.result.time, end.rank
    killed = end.exit_code is not None and end.exit_code < 0 and -end.exit_code != signal.SIGTERM
    return (0 if killed else 2), "", end.rank


def _kept_promise(verdict: Verdict, saved: int | None, committed: int | None) -> Verdict:
    """75 and 83 say that progress is saved: true only when the saved step has its COMMIT."""
    if verdict.code not in (*_SAVED, ExitCode.INTERRUPTED_UNSAVED):
        return verdict
    if saved is not None and committed is not None and committed >= saved:
        code = verdict.code if verdict.code in _SAVED else ExitCode.INTERRUPTED
        return replace(verdict, code=code)
    if verdict.code in _SAVED:
        return replace(
            verdict, code=ExitCode.INTERRUPTED_UNSAVED, reason=f"{verdict.reason}; step {saved} did not reach the store"
        )
    return verdict
