import json
import threading

import pytest

from sftjob.contract import keys
from sftjob.errors import Superseded, Unavailable
from sftjob.records import Lease, read_record
from sftjob.storage import FolderStore
from sftjob.train.attempt import Attempt
from sftjob.train.heartbeat import Heartbeat


def beats(attempt: Attempt) -> int:
    return read_record(Lease, attempt.store.get_bytes(keys.lease(1)), "lease").beat


def wait_for_end(heartbeat: Heartbeat) -> None:
    while True:
        heartbeat.check()


def test_beats_at_once_and_again(attempt: Attempt) -> None:
    heartbeat = Heartbeat(attempt, every_seconds=0.001)
    assert beats(attempt) >= 1
    while beats(attempt) < 3:
        heartbeat.check()
    heartbeat.stop()


def test_sees_a_newer_attempt(attempt: Attempt) -> None:
    heartbeat = Heartbeat(attempt, every_seconds=0.001)
    claim = {"attempt": 2, "owner": "other", "time": "2026-01-01"}
    attempt.store.put_bytes(keys.claim(2), json.dumps(claim).encode())
    with pytest.raises(Superseded, match="owner other"):
        wait_for_end(heartbeat)


def test_a_store_that_does_not_answer_ends_nothing(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    failed, again = threading.Event(), threading.Event()

    def head(*_: object) -> None:
        (again if failed.is_set() else failed).set()
        raise Unavailable("no answer")

    monkeypatch.setattr(FolderStore, "head", head)
    heartbeat = Heartbeat(attempt, every_seconds=0.001)
    assert again.wait(30)
    heartbeat.check()
    heartbeat.stop()


def test_no_beat_begins_after_stop(attempt: Attempt) -> None:
    heartbeat = Heartbeat(attempt, every_seconds=3600)
    heartbeat.stop()
    assert beats(attempt) == 1
