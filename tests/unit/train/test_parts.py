import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sftjob.contract import keys
from sftjob.errors import CrashError, StorageError
from sftjob.records import Part, Result, Wanted
from sftjob.storage import list_commits
from sftjob.train.attempt import Attempt
from sftjob.train.membership import Peers
from sftjob.train.parts import PartPublisher, PartsOfPeers, Patience
from sftjob.train.publish import Publisher, saved_steps
from sftjob.train.workdir import WorkDir


@pytest.fixture
def both(attempt: Attempt) -> list[Attempt]:
    """The two pods of an attempt."""
    job = attempt.job.model_copy(update={"launch": attempt.job.launch.model_copy(update={"nodes": 2})})
    other = WorkDir(attempt.work.root.with_name("work-1"))
    other.checkpoints.mkdir(parents=True)
    return [replace(attempt, job=job), replace(attempt, job=job, index=1, work=other)]


@pytest.fixture
def peers(both: list[Attempt]) -> Iterator[list[Peers]]:
    """What each pod sees of the other."""
    watching = [Peers(each, look_seconds=0.001) for each in both]
    yield watching
    for each in watching:
        each.stop()


def save(attempt: Attempt, step: int, content: bytes = b"x") -> None:
    folder = attempt.work.checkpoint(step)
    folder.mkdir()
    (folder / f"rng_state_{attempt.index}.bin").write_bytes(content)
    attempt.work.saved(step, 0).touch()


def ends(attempt: Attempt, code: int) -> None:
    result = Result(attempt=1, owner="local", index=attempt.index, exit_code=code, time="2026-01-01")
    attempt.store.put_bytes(keys.result(1, attempt.index), result.to_json())


def want(attempt: Attempt, step: int) -> None:
    attempt.store.put_bytes(keys.wanted(step, 1), Wanted(attempt=1, step=step).to_json())


def leader(both: list[Attempt], peers: list[Peers], patience: float = 30) -> Publisher:
    parts = PartsOfPeers(both[0], peers[0], Patience(patience), look_seconds=0.001)
    return Publisher(both[0], resumed=None, parts=parts, metrics_seconds=0)


def follower(
    both: list[Attempt], peers: list[Peers], patience: Patience | None = None, resumed: int | None = None
) -> PartPublisher:
    return PartPublisher(both[1], peers[1], patience or Patience(30), resumed=resumed, look_seconds=0.001)


def test_a_commit_names_the_files_of_both(both: list[Attempt], peers: list[Peers]) -> None:
    publishers = [leader(both, peers), follower(both, peers)]
    for each in both:
        save(each, 3)
    for publisher in publishers:
        publisher.drain()
    assert [publisher.committed for publisher in publishers] == [3, 3]
    assert list_commits(both[0].store) == [3]
    assert [saved_steps(each) for each in both] == [[], []]


def test_nothing_is_committed_before_the_last_part_is_there(both: list[Attempt], peers: list[Peers]) -> None:
    publisher = leader(both, peers)
    both[0].work.metrics.write_bytes(b"{}\n")
    save(both[0], 3)
    parts = both[0].store
    while not list(parts.list(keys.part(3, 1, 0))):
        publisher.check()
    both[0].work.metrics.write_bytes(b"{}\n{}\n")
    while not list(parts.list(keys.metrics(1, 1))):  # metrics go on meanwhile
        publisher.check()
    assert list_commits(parts) == []
    parts.put_bytes(keys.part(3, 1, 1), Part(node=1, files=()).to_json())
    publisher.drain()
    assert publisher.committed == 3


def test_a_node_that_ended_without_its_part_is_not_waited_for(both: list[Attempt], peers: list[Peers]) -> None:
    publisher = leader(both, peers)
    ends(both[1], 70)
    save(both[0], 3)
    with pytest.raises(CrashError, match="step 3 was not committed: the part of node 1 did not come"):
        publisher.drain()
    assert list_commits(both[0].store) == []


def test_a_part_that_came_before_the_end_counts(both: list[Attempt], peers: list[Peers]) -> None:
    both[1].store.put_bytes(keys.part(3, 1, 1), Part(node=1, files=()).to_json())
    ends(both[1], 70)
    while not peers[0].failed:
        time.sleep(0.001)
    publisher = leader(both, peers)
    save(both[0], 3)
    publisher.drain()
    assert publisher.committed == 3


def test_a_part_is_not_waited_for_for_ever(both: list[Attempt], peers: list[Peers]) -> None:
    publisher = leader(both, peers, patience=0.05)
    save(both[0], 3)
    with pytest.raises(CrashError, match="the part of node 1 did not come"):
        publisher.drain()


def test_patience_can_end_while_somebody_waits(both: list[Attempt], peers: list[Peers]) -> None:
    patience = Patience(3600)
    parts = PartsOfPeers(both[0], peers[0], patience, look_seconds=0.001)
    threading.Timer(0.05, lambda: patience.limit(0)).start()
    with pytest.raises(CrashError):
        parts.gather(3, lambda: None)


def test_only_the_step_that_is_asked_for_is_uploaded_and_that_once(
    both: list[Attempt], peers: list[Peers], capsys: pytest.CaptureFixture[str]
) -> None:
    patience = Patience(3600)
    publisher = follower(both, peers, patience)
    for step in (3, 6, 9):
        save(both[1], step)
    want(both[1], 6)
    while not list(both[1].store.list(keys.part(6, 1, 1))):
        publisher.check()
    patience.limit(0.05)
    publisher.drain()
    assert [info.key for info in both[1].store.list("checkpoints/") if "/parts/1" in info.key] == [keys.part(6, 1, 1)]
    assert capsys.readouterr().out.count("uploaded this node's part of step 6") == 1
    assert saved_steps(both[1]) == [3, 6, 9]
    assert publisher.committed is None


def test_a_commit_of_an_older_attempt_is_not_taken_for_this_one_s(both: list[Attempt], peers: list[Peers]) -> None:
    publishers = [leader(both, peers), follower(both, peers)]
    for each in both:
        save(each, 9)
    for publisher in publishers:
        publisher.drain()
    assert list_commits(both[0].store) == [9]

    new = replace(both[1], number=2)
    save(new, 9)
    new.store.put_bytes(keys.wanted(9, 2), Wanted(attempt=2, step=9).to_json())
    again = PartPublisher(new, peers[1], Patience(0.2), resumed=6, look_seconds=0.001)
    again.drain()
    assert list(new.store.list(keys.part(9, 2, 1)))
    assert again.committed == 6


def test_when_pod_0_has_ended_nobody_waits_for_its_commit(both: list[Attempt], peers: list[Peers]) -> None:
    publisher = follower(both, peers, Patience(3600))
    save(both[1], 3)
    ends(both[0], 70)
    publisher.drain()
    assert publisher.committed is None


def test_what_it_continues_from_is_not_waited_for(both: list[Attempt], peers: list[Peers]) -> None:
    publisher = follower(both, peers, Patience(3600), resumed=3)
    save(both[1], 3)
    publisher.drain()
    assert publisher.committed == 3


def test_a_damaged_file_is_named(both: list[Attempt], peers: list[Peers]) -> None:
    publisher = follower(both, peers)
    save(both[1], 3, b"")
    want(both[1], 3)
    with pytest.raises(StorageError, match=r"rng_state_1\.bin: not uploaded"):
        publisher.drain()
