from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import pytest

from sftjob.contract import LEASE_LOST_SECONDS, ExitCode, keys
from sftjob.errors import Hang, Held, Superseded
from sftjob.records import Claim, PodClaim, Result, read_record
from sftjob.records import Lease as LeaseRecord
from sftjob.storage import (
    FolderStore,
    Lease,
    claim_attempt,
    ensure_current,
    join_attempt,
    newest_attempt,
    record_lost,
    release,
)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@dataclass
class World:
    """A clock that moves only while somebody sleeps, and what happens meanwhile."""

    store: FolderStore
    now: float = 1000.0
    meanwhile: list[Callable[[], None]] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        for event in self.meanwhile:
            event()

    def claim(self, owner: str, pod_uid: str = "pod", patience: float = 780) -> int:
        return claim_attempt(
            self.store,
            owner=owner,
            pod_uid=pod_uid,
            nodes=2,
            clock=lambda: self.now,
            sleep=self.sleep,
            patience_seconds=patience,
        )

    def join(self, pod_uid: str, index: int = 1, owner: str = "job-a", patience: float = 60) -> int | None:
        return join_attempt(
            self.store,
            PodClaim(index=index, pod_uid=pod_uid, time="2026-01-01T00:00:00+00:00"),
            owner=owner,
            clock=lambda: self.now,
            sleep=self.sleep,
            look_seconds=1,
            patience_seconds=patience,
        )


@pytest.fixture
def world(store: FolderStore) -> World:
    return World(store)


def _result(attempt: int, reason: str = "") -> Result:
    return Result(attempt=attempt, owner="job-a", exit_code=0, reason=reason, time="2026-01-01T00:00:00+00:00")


def test_first_claim(store: FolderStore, world: World) -> None:
    assert newest_attempt(store) == 0
    assert world.claim("job-a", "pod-1") == 1

    claim = read_record(Claim, store.get_bytes(keys.claim(1)), "claim")
    assert (claim.attempt, claim.owner, claim.pod_uid, claim.nodes) == (1, "job-a", "pod-1", 2)
    assert claim.time.endswith("+00:00")


def test_same_owner_takes_over_at_once(store: FolderStore, world: World) -> None:
    assert world.claim("job-a") == 1
    Lease(store, 1).beat()

    assert world.claim("job-a") == 2
    assert world.now == 1000.0
    with pytest.raises(Superseded, match=r"attempt 2 \(owner job-a\)") as error:
        ensure_current(store, 1)
    assert error.value.exit_code == ExitCode.SUPERSEDED
    ensure_current(store, 2)


def test_another_owner_waits_for_the_release(store: FolderStore, world: World) -> None:
    world.claim("job-a")
    lease = Lease(store, 1)
    world.meanwhile = [lease.beat, lambda: release(store, 1, _result(1)) if world.now >= 1300 else None]

    assert world.claim("job-b") == 2
    assert 1300 <= world.now <= 1310


def test_released_run_is_free_at_once(store: FolderStore, world: World) -> None:
    world.claim("job-a")
    release(store, 1, _result(1))

    assert world.claim("job-b") == 2
    assert world.now == 1000.0


def test_dead_holder_is_replaced(store: FolderStore, world: World) -> None:
    world.claim("job-a")
    Lease(store, 1).beat()

    assert world.claim("job-b") == 2
    assert LEASE_LOST_SECONDS <= world.now - 1000 <= LEASE_LOST_SECONDS + 10


def test_holder_that_died_before_its_first_beat(world: World) -> None:
    world.claim("job-a")

    assert world.claim("job-b") == 2
    assert world.now - 1000 >= LEASE_LOST_SECONDS


def test_holder_that_lives_keeps_the_run(store: FolderStore, world: World) -> None:
    world.claim("job-a", "pod-7")
    lease = Lease(store, 1)
    beats = iter(range(10_000))
    world.meanwhile = [lambda: lease.beat() if next(beats) % 20 == 0 else None]

    with pytest.raises(Held, match=r"attempt 1 of owner job-a, pod pod-7 .*last sign of life 20") as error:
        world.claim("job-b", patience=780)
    assert error.value.exit_code == ExitCode.HELD
    assert 780 <= world.now - 1000 <= 790
    assert newest_attempt(store) == 1


def test_without_patience(store: FolderStore, world: World) -> None:
    world.claim("job-a")

    with pytest.raises(Held, match="claimed 20"):
        world.claim("job-b", patience=0)
    assert world.now == 1000.0


def test_next_attempt_of_the_holder_starts_the_wait_anew(store: FolderStore, world: World) -> None:
    world.claim("job-a")
    done: list[int] = []
    world.meanwhile = [lambda: done.append(world.claim("job-a")) if world.now >= 1100 and not done else None]

    assert world.claim("job-b") == 3
    assert world.now >= 1100 + LEASE_LOST_SECONDS


def test_loser_of_a_race_looks_again(store: FolderStore, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between our look and our claim another owner has claimed: now that one holds the run."""
    put_bytes = store.put_bytes

    def late(key: str, data: bytes, *, if_absent: bool = False) -> None:
        monkeypatch.setattr(store, "put_bytes", put_bytes)
        put_bytes(key, Claim(attempt=1, owner="job-z", time="2026-01-01").to_json(), if_absent=True)
        put_bytes(key, data, if_absent=if_absent)

    monkeypatch.setattr(store, "put_bytes", late)

    with pytest.raises(Held, match="job-z"):
        world.claim("job-a", patience=0)


def test_a_listing_that_lags(store: FolderStore, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        world.claim("job-a")
    monkeypatch.setattr(store, "list", lambda prefix: iter(()))

    assert newest_attempt(store) == 3
    assert world.claim("job-a") == 4


def test_numbers_are_numbers(store: FolderStore, world: World) -> None:
    for _ in range(11):
        world.claim("job-a")
    store.put_bytes("attempts/99/pods/0.json", b"{}")
    store.put_bytes("attempts/x/claim.json", b"{}")

    assert newest_attempt(store) == 11


def test_beats_count_up_from_any_thread(store: FolderStore) -> None:
    lease = Lease(store, 3)
    threads = [Thread(target=lease.beat) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    record = read_record(LeaseRecord, store.get_bytes(keys.lease(3)), "lease")
    assert (record.attempt, record.beat) == (3, 8)


def test_first_release_stands(store: FolderStore) -> None:
    release(store, 1, _result(1, "first"))
    release(store, 1, _result(1, "second"))

    assert read_record(Result, store.get_bytes(keys.released(1)), "released").reason == "first"


class TestJoin:
    """A pod other than 0 takes its place in the attempt that pod 0 has claimed."""

    def test_waits_for_the_claim(self, store: FolderStore, world: World) -> None:
        world.meanwhile = [lambda: None if world.now < 1030 or newest_attempt(store) else world.claim("job-a")]

        assert world.join("pod-1") == 1
        assert 1030 <= world.now <= 1032
        assert read_record(PodClaim, store.get_bytes(keys.pod(1, 1)), "pod").pod_uid == "pod-1"

    def test_again_is_no_harm(self, world: World) -> None:
        """The reply to its first try was lost."""
        world.claim("job-a")

        assert [world.join("pod-1"), world.join("pod-1")] == [1, 1]

    def test_each_index_has_a_place(self, world: World) -> None:
        world.claim("job-a")

        assert [world.join("pod-1"), world.join("pod-2", index=2)] == [1, 1]

    def test_a_successor_says_that_the_place_is_lost_and_joins_the_next_attempt(
        self, store: FolderStore, world: World
    ) -> None:
        world.claim("job-a")
        world.join("pod-1")
        store.put_bytes(keys.environment(1, 0), b"{}")  # pod 0 trains
        seen: list[int] = []

        def claim_when_told() -> None:
            if not seen:
                seen.append(read_record(Result, store.get_bytes(keys.result(1, 1)), "result").exit_code)
                world.claim("job-a")

        world.meanwhile = [claim_when_told]
        assert world.join("pod-1-again") == 2
        assert seen == [ExitCode.INTERRUPTED_UNSAVED]

    @pytest.mark.parametrize("ended", ["released", "a peer's result"])
    def test_nobody_joins_an_attempt_that_is_over(self, store: FolderStore, world: World, ended: str) -> None:
        world.claim("job-a")
        if ended == "released":
            release(store, 1, _result(1))
        else:
            store.put_bytes(keys.result(1, 2), _result(1).to_json())
        world.meanwhile = [lambda: None if newest_attempt(store) > 1 else world.claim("job-a")]

        assert world.join("pod-1") == 2

    def test_another_owner_s_attempt_is_not_joined(self, world: World) -> None:
        world.claim("job-b")

        with pytest.raises(Hang, match="node 0 has claimed no attempt that node 1 could join within 60 s"):
            world.join("pod-1")
        assert 1060 <= world.now <= 1062

    def test_a_run_that_is_done_is_not_waited_for(self, store: FolderStore, world: World) -> None:
        world.meanwhile = [lambda: store.put_bytes(keys.SUCCESS, b"{}")]

        assert world.join("pod-1") is None

    def test_what_a_pod_has_said_itself_stands(self, store: FolderStore) -> None:
        store.put_bytes(keys.result(1, 0), _result(1, "all is well").to_json())
        record_lost(store, 1, owner="job-a", index=0)

        assert read_record(Result, store.get_bytes(keys.result(1, 0)), "result").reason == "all is well"
