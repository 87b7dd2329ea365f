"""The other pods of an attempt: whether they live, how they have ended, and one verdict for all of them.

Pods talk through the store alone. Each looks every few seconds for a newer claim and for its peers' results, and stops
its ranks when there is one: a rank whose peer is gone may wait in a collective for half an hour.
"""

import re
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

from sftjob.contract import LEASE_LOST_SECONDS, Env, ExitCode, keys
from sftjob.errors import Hang, NotFound, Unavailable
from sftjob.records import PodClaim, Result, read_record
from sftjob.storage import ensure_current
from sftjob.storage.base import ObjectStore, exists
from sftjob.train.attempt import Attempt, now, say
from sftjob.train.background import Background
from sftjob.train.stop import Interrupted
from sftjob.train.verdict import Judged, Verdict, known_code, strongest

AGREE_SECONDS: Final = 20.0
"""How long the end of an attempt waits for what its peers say."""
_SAVING_SECONDS: Final = 30.0
"""After a peer was interrupted: our ranks have agreed with its ranks to save, and may be at it still."""
_INTERRUPTED: Final = frozenset({ExitCode.INTERRUPTED, ExitCode.INTERRUPTED_UNSAVED})
_CONSEQUENCE: Final = "another rank is gone"
"""Begins what a rank says that its peer has taken along; the cause is told first."""
_NAMED: Final = re.compile(r"node [0-9]+: ")
_NAME_SECONDS: Final = 300.0
"""How long pod 0's name may be unknown. A cluster's DNS learns it when the pod starts, and keeps a no for a while."""
_INDEX: Final = re.compile(r"([0-9]+)\.json")


class Peers:
    """Watches the other pods of an attempt in a thread, until `stop`. Alone, on one node, it does nothing."""

    def __init__(
        self, attempt: Attempt, *, look_seconds: float, lease_lost_seconds: float = LEASE_LOST_SECONDS
    ) -> None:
        self._attempt = attempt
        self._look_seconds = look_seconds
        self._lease_lost_seconds = lease_lost_seconds
        self._results: dict[int, Result] = {}
        self._seen: dict[int, float] = {}
        self._lease = b""
        self._lease_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = Background(self._run, "peers") if attempt.job.launch.nodes > 1 else None

    @property
    def results(self) -> Mapping[int, Result]:
        """How peers have ended, by their index; those that have not are missing."""
        return dict(self._results)

    @property
    def failed(self) -> bool:
        """A peer has ended, and not well."""
        return any(result.exit_code != ExitCode.DONE for result in self.results.values())

    def check(self) -> None:
        """Ends what this pod does.

        Raises:
            Judged: a peer has failed, or has been interrupted some time ago.
            Superseded: a newer attempt has taken over.
            Interrupted: pod 0 gives no sign of life.
        """
        self.check_claim()
        for index, result in self.results.items():
            patience = _SAVING_SECONDS if result.exit_code in _INTERRUPTED else 0.0
            if result.exit_code != ExitCode.DONE and time.monotonic() - self._seen[index] >= patience:
                raise Judged(_verdict(result))

    def check_claim(self) -> None:
        """`check` for when the ranks have ended: what a peer has said does not matter any more.

        Raises:
            Superseded, Interrupted: as `check`.
        """
        if self._thread:
            self._thread.check()

    def stop(self) -> None:
        """No look begins after this."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._look_seconds):
            # A store that does not answer for a while must not end a training that can go on.
            with suppress(Unavailable):
                self._look()

    def _look(self) -> None:
        attempt = self._attempt
        ensure_current(attempt.store, attempt.number)
        for index, result in _results(attempt, known=self._results).items():
            self._seen[index] = time.monotonic()
            self._results[index] = result
        if attempt.index > 0 and 0 not in self._results:
            self._look_at_lease()

    def _look_at_lease(self) -> None:
        try:
            lease = self._attempt.store.get_bytes(keys.lease(self._attempt.number))
        except NotFound:
            lease = b""
        if lease != self._lease:
            self._lease, self._lease_at = lease, time.monotonic()
        elif time.monotonic() - self._lease_at >= self._lease_lost_seconds:
            raise Interrupted(f"node 0 has given no sign of life for {self._lease_lost_seconds:.0f} s")


def wait_for(store: ObjectStore, key: str, *, look_seconds: float) -> bytes:
    """The object that pod 0 will write. Without end: whoever calls watches whether pod 0 lives."""
    while True:
        with suppress(NotFound):
            return store.get_bytes(key)
        time.sleep(look_seconds)


def await_name(host: str, *, look_seconds: float, seconds: float = _NAME_SECONDS) -> None:
    """Waits until `host` has an address; ranks would keep asking for half an hour, with GPUs that do nothing.

    Raises:
        Hang: it has none in time.
    """
    begin, told = time.monotonic(), False
    while True:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError) as error:
            reason = error
        else:
            return
        if time.monotonic() - begin >= seconds:
            raise Hang(
                f"node 0's name {host} has had no address for {seconds:.0f} s ({reason})",
                field=Env.MASTER_ADDR,
                hint="look whether the headless Service is there, has that name and publishes pods that are not ready",
            )
        if not told:
            told = True
            say(f"waiting for an address of {host} …")
        time.sleep(look_seconds)


def await_all_ready(attempt: Attempt, *, look_seconds: float, patience_seconds: float) -> None:
    """Says that this pod's ranks could start, and waits until all can: then no rank waits for one that still loads.

    Raises:
        Hang: some pods are not ready in time; they are named.
    """
    store, number = attempt.store, attempt.number
    ready = PodClaim(index=attempt.index, pod_uid="", time=now())
    store.put_bytes(keys.ready(number, attempt.index), ready.to_json())
    begin, told = time.monotonic(), False
    while missing := [node for node in range(attempt.job.launch.nodes) if not exists(store, keys.ready(number, node))]:
        if time.monotonic() - begin >= patience_seconds:
            raise Hang(_absent(attempt, missing, patience_seconds), hint="look at the logs and events of these pods")
        if not told:
            told = True
            say(f"ready; waiting for {_nodes(missing)} …")
        time.sleep(look_seconds)


def agree(attempt: Attempt, own: Verdict, *, seconds: float, look_seconds: float) -> Verdict:
    """One verdict for all pods of the attempt: the strongest of theirs. So an eviction of one interrupts all.

    Args:
        own: has been stored already.
        seconds: how long to wait for the results of those that have joined.
    """
    deadline = time.monotonic() + seconds
    results: dict[int, Result] = {}
    while True:
        results |= _results(attempt, known=results)
        missing = [node for node in _others(attempt) if node not in results and _joined(attempt, node)]
        if not missing or time.monotonic() >= deadline:
            break
        time.sleep(min(look_seconds, max(0.0, deadline - time.monotonic())))
    return strongest(*_causes_first([own, *(_verdict(results[node]) for node in sorted(results))]))


def named(attempt: Attempt, verdict: Verdict) -> Verdict:
    """On several nodes a reason says which node it is from."""
    if attempt.job.launch.nodes == 1 or verdict.code is ExitCode.DONE or _NAMED.match(verdict.reason):
        return verdict
    reason = f"node {attempt.index}: {verdict.reason or verdict.code.meaning}"
    return Verdict(verdict.code, reason, verdict.step)


def _results(attempt: Attempt, *, known: Mapping[int, Result]) -> dict[int, Result]:
    """Results of other pods that are not known yet."""
    prefix = keys.results(attempt.number)
    names = (_INDEX.fullmatch(info.key.removeprefix(prefix)) for info in attempt.store.list(prefix))
    indices = (int(name[1]) for name in names if name)
    return {index: _read(attempt, index) for index in indices if index != attempt.index and index not in known}


def _read(attempt: Attempt, index: int) -> Result:
    key = keys.result(attempt.number, index)
    return read_record(Result, attempt.store.get_bytes(key), key)


def _verdict(result: Result) -> Verdict:
    code = known_code(result.exit_code)
    return Verdict(code, result.reason or f"node {result.index}: {code.meaning}", result.step)


def _causes_first(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Before what only followed from them; and what is saved before what is not, since the COMMIT is there."""

    def place(verdict: Verdict) -> tuple[bool, bool]:
        return _CONSEQUENCE in verdict.reason, verdict.code is ExitCode.INTERRUPTED_UNSAVED

    return sorted((each for each in verdicts if each.code is not ExitCode.DONE), key=place)


def _others(attempt: Attempt) -> list[int]:
    return [node for node in range(attempt.job.launch.nodes) if node != attempt.index]


def _joined(attempt: Attempt, node: int) -> bool:
    return exists(attempt.store, keys.pod(attempt.number, node))


def _absent(attempt: Attempt, missing: list[int], seconds: float) -> str:
    never = [node for node in missing if not _joined(attempt, node)]
    if never:
        return f"{_nodes(never)} of {attempt.job.launch.nodes} did not join attempt {attempt.number} in {seconds:.0f} s"
    return f"{_nodes(missing)} did not get ready within {seconds:.0f} s"


def _nodes(indices: list[int]) -> str:
    return f"node{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices))}"
