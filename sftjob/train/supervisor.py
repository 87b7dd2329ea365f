"""One attempt from end to end, as PID 1 of a pod or as a child of `sftjob run`. Imports no torch.

Whatever may block for long runs in a thread that can be left behind, while the main thread watches what may end it: a
request to stop, a newer attempt, the ranks, and on several nodes the other pods. No process that was started is alive
when `supervise` returns.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sftjob.contract import ExitCode, keys
from sftjob.errors import SftjobError
from sftjob.records import Commit
from sftjob.resolve.notes import notes_on
from sftjob.train.attempt import Attempt, say
from sftjob.train.background import Background
from sftjob.train.finish import publish_export, record_end, record_result
from sftjob.train.heartbeat import Heartbeat
from sftjob.train.launcher import NodePlace
from sftjob.train.membership import AGREE_SECONDS, Peers, agree, await_name, named, wait_for
from sftjob.train.merge import MERGE
from sftjob.train.opening import Run, held_folder, open_run, resolve_once, take_part
from sftjob.train.parts import CRASHED_SECONDS, PartPublisher, PartsOfPeers, Patience
from sftjob.train.prepared import PREPARE
from sftjob.train.processes import become_subreaper, descendants, kill_descendants
from sftjob.train.publish import Publisher, Uploader
from sftjob.train.ranks import WORKER, Ranks
from sftjob.train.settings import Settings
from sftjob.train.staging import stage
from sftjob.train.stop import Grace, Interrupted, StopRequest
from sftjob.train.verdict import RankEnd, Verdict, judge, strongest, verdict_of

_LOOK_SECONDS: Final = 0.05
_NOT_SHARED: Final = frozenset({ExitCode.DONE, ExitCode.SUPERSEDED})
"""Ends about which pods need not agree: what is in the store proves them."""
_RECORD_SECONDS: Final = 2.0
"""Of a grace period, kept for the last objects after pods have agreed on how the attempt ended."""


@dataclass(frozen=True)
class Programs:
    """What the supervisor starts; each gets `--work DIR`. Tests put scripts here."""

    worker: Sequence[str] = WORKER
    prepare: Sequence[str] = PREPARE
    merge: Sequence[str] = MERGE


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
        return run, take_part(run, resolve_once(run, settings), settings)

    run, attempt = Background(begin, "begin").wait(stop.check)
    if attempt is None:
        say(f"training is done: {run.store.uri}")
        if run.spec.export.merge and run.unmerged:
            say("note: it has published no merged model; `sftjob merge` makes one of it")
        return Verdict(ExitCode.DONE)
    for note in notes_on(attempt.job):
        say(f"note: {note}")
    return _Supervision(run, attempt, settings, programs, stop).run()


class _Supervision:
    """An attempt that holds the run, as far as this pod has a part in it."""

    def __init__(self, run: Run, attempt: Attempt, settings: Settings, programs: Programs, stop: StopRequest) -> None:
        self._run = run
        self._attempt = attempt
        self._settings = settings
        self._programs = programs
        self._stop = stop
        self._log_tail = b""
        self._peers = Peers(attempt, look_seconds=settings.look_seconds)
        self._patience = Patience(settings.patience_seconds)

    def run(self) -> Verdict:
        others = descendants(os.getpid())
        heartbeat: Heartbeat | None = None
        try:
            # Pod 0's sign of life is the attempt's.
            heartbeat = Heartbeat(self._attempt) if self._leads else None
            verdict = self._train(heartbeat.check if heartbeat else _nothing)
        except Exception as error:
            verdict = verdict_of(error)
        finally:
            if heartbeat:
                heartbeat.stop()
            self._peers.stop()
            if survivors := kill_descendants(keep=others):
                say(f"processes that could not be killed: {', '.join(map(str, sorted(survivors)))}")
        return self._record(named(self._attempt, verdict))

    @property
    def _leads(self) -> bool:
        return self._attempt.index == 0

    def _train(self, alive: Callable[[], None]) -> Verdict:
        commit = Background(self._stage, "stage").wait(self._stop.check, alive, self._peers.check)
        self._stop.check()
        publisher = self._publisher(commit)
        processes = self._attempt.job.launch.processes_per_node
        ranks = Ranks(self._programs.worker, self._attempt.work, processes=processes, place=self._place())
        watched = self._watch(ranks, self._peers.check, publisher.check, alive)
        ranks.kill()
        self._log_tail = ranks.log_tail()
        ended, peers_failed = watched.code is not ExitCode.DONE, self._peers.failed
        if ended and not (self._stop.requested or peers_failed):
            return watched  # the ranks did not fail, they were ended for this
        ends = ranks.ends()
        drained = watched if ended and not peers_failed else self._drain(publisher, alive, ends)
        told = watched if ended and not self._stop.requested else self._judge(ends, publisher)
        verdict = strongest(told, watched, drained)
        if verdict.code is ExitCode.DONE:
            self._finish(verdict.step or 0, alive)
        return verdict

    def _publisher(self, commit: Commit | None) -> Uploader:
        attempt, look_seconds = self._attempt, self._settings.look_seconds
        resumed = commit.step if commit else None
        if not self._leads:
            return PartPublisher(attempt, self._peers, self._patience, resumed=resumed, look_seconds=look_seconds)
        parts = PartsOfPeers(attempt, self._peers, self._patience, look_seconds=look_seconds)
        return Publisher(attempt, resumed=resumed, parts=parts if attempt.job.launch.nodes > 1 else None)

    def _place(self) -> NodePlace | None:
        nodes, settings = self._attempt.job.launch.nodes, self._settings
        if nodes == 1:
            return None
        return NodePlace(settings.index, nodes, settings.master_addr or "", settings.master_port)

    def _judge(self, ends: Sequence[RankEnd], publisher: Uploader) -> Verdict:
        # Rank 0, which is pod 0's, exports for all.
        exported = self._attempt.work.exported.exists() or not self._leads
        return judge(ends, committed=publisher.committed, stopped=self._stop.requested, exported=exported)

    def _finish(self, step: int, alive: Callable[[], None]) -> None:
        """Returns when the export is durable."""
        if self._leads:
            merge = self._programs.merge if self._run.spec.export.merge else None
            export = Background(lambda: publish_export(self._attempt, step, merge), "export")
            export.wait(self._stop.check_time, alive)
        else:
            look_seconds = self._settings.look_seconds
            store = self._attempt.store
            wait = Background(lambda: wait_for(store, keys.SUCCESS, look_seconds=look_seconds), "await success")
            wait.wait(self._stop.check_time, self._peers.check)

    def _stage(self) -> Commit | None:
        if place := self._place():
            await_name(place.master_addr, look_seconds=self._settings.look_seconds)
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

    def _drain(self, publisher: Uploader, alive: Callable[[], None], ends: Sequence[RankEnd]) -> Verdict:
        """Done when everything that was saved is in the store."""
        if not all(end.orderly for end in ends):
            self._patience.limit(CRASHED_SECONDS)
        try:
            publisher.drain(self._stop.check_time, alive, self._peers.check_claim)
        except Exception as error:
            return verdict_of(error)
        return Verdict(ExitCode.DONE)

    def _record(self, verdict: Verdict) -> Verdict:
        """Stores the verdict; on several nodes it becomes that of all pods."""

        def record() -> Verdict:
            record_result(self._attempt, verdict, self._log_tail)
            shared = verdict if verdict.code in _NOT_SHARED else self._agree(verdict)
            if self._leads:
                record_end(self._attempt, shared)
            return shared

        try:
            return Background(record, "record").wait(self._stop.check_time)
        except (SftjobError, Interrupted) as error:
            say(f"how this attempt ended could not be stored: {error}")
            return verdict

    def _agree(self, verdict: Verdict) -> Verdict:
        if self._attempt.job.launch.nodes == 1:
            return verdict
        left = self._stop.grace.finish - self._stop.seconds - _RECORD_SECONDS
        seconds = max(0.0, min(AGREE_SECONDS, left)) if self._stop.requested else AGREE_SECONDS
        return agree(self._attempt, verdict, seconds=seconds, look_seconds=self._settings.look_seconds)


def _nothing() -> None:
    """Peers of pod 0 give no sign of life of their own."""
