"""One attempt from end to end, as PID 1 of a pod or as a child of `sftjob run`. Imports no torch.

Whatever may block for long runs in a thread that can be left behind, while the main thread watches three things: a
request to stop, a newer attempt, and the ranks. No process that was started is alive when `supervise` returns.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sftjob.contract import ExitCode
from sftjob.errors import SftjobError
from sftjob.records import Commit
from sftjob.train.attempt import Attempt, say
from sftjob.train.background import Background
from sftjob.train.finish import publish_export, record_end
from sftjob.train.heartbeat import Heartbeat
from sftjob.train.opening import Run, claim, held_folder, open_run, resolve_once
from sftjob.train.prepared import PREPARE
from sftjob.train.processes import become_subreaper, descendants, kill_descendants
from sftjob.train.publish import Publisher
from sftjob.train.ranks import WORKER, Ranks
from sftjob.train.settings import Settings
from sftjob.train.staging import stage
from sftjob.train.stop import Grace, Interrupted, StopRequest
from sftjob.train.verdict import Verdict, judge, strongest, verdict_of

_LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Programs:
    """What the supervisor starts; each gets `--work DIR`. Tests put scripts here."""

    worker: Sequence[str] = WORKER
    prepare: Sequence[str] = PREPARE


def supervise(settings: Settings, programs: Programs = Programs()) -> Verdict:
    """Runs an attempt. Call it from the main thread: it installs signal handlers while it runs.

    Returns:
        How it ended; never raises what a person can repair.
    """
    become_subreaper()
    with StopRequest(Grace(settings.grace_seconds)) as stop:
        try:
            with held_folder(settings):
                return _run(settings, programs, stop)
        except Exception as error:
            return verdict_of(error)


def _run(settings: Settings, programs: Programs, stop: StopRequest) -> Verdict:
    def begin() -> tuple[Run, Attempt | None]:
        run = open_run(settings)
        if run.done:
            return run, None
        return run, claim(run, resolve_once(run, settings), settings)

    run, attempt = Background(begin, "begin").wait(stop.check)
    if attempt is None:
        say(f"training is done: {run.store.uri}")
        return Verdict(ExitCode.DONE)
    return _Supervision(run, attempt, settings, programs, stop).run()


class _Supervision:
    """An attempt that holds the run."""

    def __init__(self, run: Run, attempt: Attempt, settings: Settings, programs: Programs, stop: StopRequest) -> None:
        self._run = run
        self._attempt = attempt
        self._settings = settings
        self._programs = programs
        self._stop = stop
        self._log_tail = b""

    def run(self) -> Verdict:
        others = descendants(os.getpid())
        heartbeat: Heartbeat | None = None
        try:
            heartbeat = Heartbeat(self._attempt)
            verdict = self._train(heartbeat)
        except Exception as error:
            verdict = verdict_of(error)
        finally:
            if heartbeat:
                heartbeat.stop()
            if survivors := kill_descendants(keep=others):
                say(f"processes that could not be killed: {', '.join(map(str, sorted(survivors)))}")
        self._record(verdict)
        return verdict

    def _train(self, heartbeat: Heartbeat) -> Verdict:
        commit = Background(self._stage, "stage").wait(self._stop.check, heartbeat.check)
        self._stop.check()
        processes = self._attempt.job.launch.processes_per_node
        publisher = Publisher(self._attempt, resumed=commit.step if commit else None)
        ranks = Ranks(self._programs.worker, self._attempt.work, processes=processes)
        watched = self._watch(ranks, publisher.check, heartbeat.check)
        ranks.kill()
        self._log_tail = ranks.log_tail()
        if watched.code is not ExitCode.DONE and not self._stop.requested:
            return watched  # the ranks did not fail, they were ended for this
        drained = watched if watched.code is not ExitCode.DONE else self._drain(publisher, heartbeat)
        exported = self._attempt.work.exported.exists()
        told = judge(ranks.ends(), committed=publisher.committed, stopped=self._stop.requested, exported=exported)
        verdict = strongest(told, drained)
        if verdict.code is ExitCode.DONE:
            step = verdict.step or 0
            export = Background(lambda: publish_export(self._attempt, step), "export")
            export.wait(self._stop.check_time, heartbeat.check)
        return verdict

    def _stage(self) -> Commit | None:
        return stage(self._attempt, self._run, self._settings, prepare=self._programs.prepare)

    def _watch(self, ranks: Ranks, *checks: Callable[[], None]) -> Verdict:
        """Done when no rank runs any more; otherwise why none should."""
        announced = False
        try:
            while not ranks.ended():
                if self._stop.requested and not announced:
                    announced = True
                    say("asked to stop: saving …")
                ranks.press(self._stop)
                for check in checks:
                    check()
                time.sleep(_LOOK_SECONDS)
        except Exception as error:
            return verdict_of(error)
        return Verdict(ExitCode.DONE)

    def _drain(self, publisher: Publisher, heartbeat: Heartbeat) -> Verdict:
        """Done when everything that was saved is in the store."""
        try:
            publisher.drain(self._stop.check_time, heartbeat.check)
        except Exception as error:
            return verdict_of(error)
        return Verdict(ExitCode.DONE)

    def _record(self, verdict: Verdict) -> None:
        record = Background(lambda: record_end(self._attempt, verdict, self._log_tail), "record")
        try:
            record.wait(self._stop.check_time)
        except (SftjobError, Interrupted) as error:
            say(f"how this attempt ended could not be stored: {error}")
