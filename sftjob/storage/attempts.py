"""Attempts: who runs and who has joined, proven by objects. Clocks of different machines are never compared."""

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sftjob.contract import LEASE_LOST_SECONDS, ExitCode, keys
from sftjob.errors import Exists, Hang, Held, NotFound, Superseded
from sftjob.records import Claim, PodClaim, Result, read_record
from sftjob.records import Lease as LeaseRecord
from sftjob.storage.base import ObjectStore, exists

_LOOK_SECONDS: Final = 5.0
_CLAIM_KEY: Final = re.compile(r"attempts/([1-9][0-9]*)/claim\.json")
_RESULT_KEY: Final = re.compile(r"attempts/[1-9][0-9]*/results/[0-9]+\.json")
"""Environments lie beside results while the attempt lives."""


@dataclass(frozen=True)
class _Sign:
    """What shows that the holder lives: any change of it."""

    attempt: int
    lease: bytes


def claim_attempt(
    store: ObjectStore,
    *,
    owner: str,
    pod_uid: str,
    nodes: int,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    patience_seconds: float,
) -> int:
    """Claims the next attempt of the run that `store` shows; exactly one of several claimers gets each number.

    Within one owner the newer attempt takes over at once. Another owner's run is free when it was released or when
    its lease has not changed for `LEASE_LOST_SECONDS` on our own clock.

    Args:
        owner: UID of the JobSet or Job, or `local`.
        clock: monotonic seconds.
        patience_seconds: how long to wait for another owner.

    Returns:
        The number of the attempt, from 1.

    Raises:
        Held: another owner still holds the run.
    """
    begin = clock()
    sign, since = None, begin
    while True:
        newest = newest_attempt(store)
        holder = _claim(store, newest) if newest else None
        if holder and holder.owner != owner and not _released(store, newest):
            seen = _Sign(newest, _lease(store, newest))
            if seen != sign:
                sign, since = seen, clock()
            if clock() - since < LEASE_LOST_SECONDS:
                if clock() - begin >= patience_seconds:
                    raise _held(holder, seen)
                sleep(_LOOK_SECONDS)
                continue
        claim = Claim(attempt=newest + 1, owner=owner, pod_uid=pod_uid, nodes=nodes, time=_now())
        # Who loses the race looks again at who holds the run now.
        with suppress(Exists):
            store.put_bytes(keys.claim(claim.attempt), claim.to_json(), if_absent=True)
            return claim.attempt


def join_attempt(
    store: ObjectStore,
    pod: PodClaim,
    *,
    owner: str,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    look_seconds: float,
    patience_seconds: float,
) -> int | None:
    """Takes the place of a pod other than 0 in the attempt that pod 0 of the same owner has claimed; waits for one.

    A pod whose place is taken is a successor: it records the result of that place as lost, so that the peers stop, and
    awaits the next attempt. So it does where the attempt is over.

    Args:
        pod: differs from what another pod in this place has written.
        owner: UID of the JobSet or Job, or `local`.
        clock: monotonic seconds.
        patience_seconds: how long to wait for pod 0.

    Returns:
        The number of the attempt; None where the run is done.

    Raises:
        Hang: pod 0 has claimed no attempt in time.
    """
    begin = clock()
    while not exists(store, keys.SUCCESS):
        newest = newest_attempt(store)
        if newest and _claim(store, newest).owner == owner and not _over(store, newest):
            try:
                store.put_bytes(keys.pod(newest, pod.index), pod.to_json(), if_absent=True)
            except Exists:
                record_lost(store, newest, owner=owner, index=pod.index)
            else:
                return newest
        if clock() - begin >= patience_seconds:
            raise Hang(
                f"node 0 has claimed no attempt that node {pod.index} could join within {patience_seconds:.0f} s",
                hint="look at the log of pod 0; all pods of a run have to be there at the same time",
            )
        sleep(look_seconds)
    return None


def record_lost(store: ObjectStore, attempt: int, *, owner: str, index: int) -> None:
    """Says for a pod that its place in an attempt is empty, unless it has left a result itself."""
    result = Result(
        attempt=attempt,
        owner=owner,
        index=index,
        exit_code=ExitCode.INTERRUPTED_UNSAVED,
        reason=f"node {index}: was lost without a result; its successor is there",
        time=_now(),
    )
    with suppress(Exists):
        store.put_bytes(keys.result(attempt, index), result.to_json(), if_absent=True)


def newest_attempt(store: ObjectStore) -> int:
    """Number of the newest claim; 0 where there is none. Right even where a listing lags: numbers have no gaps."""
    matches = (_CLAIM_KEY.fullmatch(info.key) for info in store.list(keys.ATTEMPTS))
    newest = max((int(match[1]) for match in matches if match), default=0)
    while exists(store, keys.claim(newest + 1)):
        newest += 1
    return newest


def ensure_current(store: ObjectStore, attempt: int) -> None:
    """To be called before whatever only the newest attempt may do.

    Raises:
        Superseded: a newer claim exists.
    """
    if exists(store, keys.claim(attempt + 1)):
        newer = _claim(store, attempt + 1)
        raise Superseded(f"attempt {newer.attempt} (owner {newer.owner}) has taken over from attempt {attempt}")


def release(store: ObjectStore, attempt: int, result: Result) -> None:
    """Lets another owner take over at once. The first release of an attempt stands."""
    with suppress(Exists):
        store.put_bytes(keys.released(attempt), result.to_json(), if_absent=True)


class Lease:
    """The sign of life of an attempt; call `beat` every `LEASE_SECONDS`, from any thread."""

    def __init__(self, store: ObjectStore, attempt: int) -> None:
        self._store = store
        self._attempt = attempt
        self._lock = threading.Lock()
        self._beats = 0

    def beat(self) -> None:
        """Rewrites lease.json. Raises what the store raises; a beat missed now and then does no harm."""
        with self._lock:
            self._beats += 1
            record = LeaseRecord(attempt=self._attempt, beat=self._beats, time=_now())
            self._store.put_bytes(keys.lease(self._attempt), record.to_json())


def _claim(store: ObjectStore, attempt: int) -> Claim:
    key = keys.claim(attempt)
    return read_record(Claim, store.get_bytes(key), key)


def _released(store: ObjectStore, attempt: int) -> bool:
    return exists(store, keys.released(attempt))


def _over(store: ObjectStore, attempt: int) -> bool:
    """A pod of it has ended, so none should join any more."""
    results = (_RESULT_KEY.fullmatch(info.key) for info in store.list(keys.results(attempt)))
    return _released(store, attempt) or any(results)


def _lease(store: ObjectStore, attempt: int) -> bytes:
    """Empty where the holder has not beaten yet."""
    try:
        return store.get_bytes(keys.lease(attempt))
    except NotFound:
        return b""


def _held(holder: Claim, seen: _Sign) -> Held:
    if seen.lease:
        life = f"last sign of life {read_record(LeaseRecord, seen.lease, keys.lease(seen.attempt)).time}"
    else:
        life = f"claimed {holder.time}"
    pod = f", pod {holder.pod_uid}" if holder.pod_uid else ""
    return Held(
        f"attempt {holder.attempt} of owner {holder.owner}{pod} holds this run ({life})",
        hint=f"delete that Job or wait for it to end; a run without signs of life is free after {LEASE_LOST_SECONDS} s",
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
