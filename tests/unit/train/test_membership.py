import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sftjob.contract import ExitCode, keys
from sftjob.errors import Hang, Superseded, Unavailable
from sftjob.records import Claim, PodClaim, Result
from sftjob.storage import FolderStore, Lease
from sftjob.train import supervisor
from sftjob.train.attempt import Attempt
from sftjob.train.membership import Peers, agree, await_name, named
from sftjob.train.settings import Settings
from sftjob.train.stop import Grace, Interrupted, StopRequest
from sftjob.train.verdict import Judged, Verdict

CRASH = Verdict(ExitCode.CRASH, "node 0: oops")


@pytest.fixture
def three(attempt: Attempt) -> Attempt:
    """Pod 0 of three; all have joined."""
    job = attempt.job.model_copy(update={"launch": attempt.job.launch.model_copy(update={"nodes": 3})})
    for index in range(3):
        pod = PodClaim(index=index, pod_uid=f"pod-{index}", time="2026-01-01")
        attempt.store.put_bytes(keys.pod(1, index), pod.to_json())
    return replace(attempt, job=job)


def ends(attempt: Attempt, index: int, code: int, reason: str = "", step: int | None = None) -> None:
    result = Result(attempt=1, owner="local", index=index, exit_code=code, reason=reason, step=step, time="2026-01-01")
    attempt.store.put_bytes(keys.result(1, index), result.to_json())


def watch(attempt: Attempt, *, until: Callable[[Peers], bool] = lambda _peers: False, lost: float = 60.0) -> Peers:
    """Raises what the watching raises."""
    peers = Peers(attempt, look_seconds=0.001, lease_lost_seconds=lost)
    try:
        deadline = time.monotonic() + 30
        while not until(peers):
            assert time.monotonic() < deadline
            peers.check()
            time.sleep(0.001)
    finally:
        peers.stop()
    return peers


class TestPeers:
    def test_one_node_has_none(self, attempt: Attempt) -> None:
        ends(attempt, 1, 70)
        peers = Peers(attempt, look_seconds=0.001)
        time.sleep(0.02)
        peers.check()
        assert not peers.results

    def test_a_failure_ends_the_others(self, three: Attempt) -> None:
        ends(three, 2, 70, "node 2: oops", step=4)
        with pytest.raises(Judged) as caught:
            watch(three)
        assert caught.value.verdict == Verdict(ExitCode.CRASH, "node 2: oops", 4)

    def test_its_own_result_is_not_a_peer_s(self, three: Attempt) -> None:
        ends(three, 0, 70)
        ends(three, 1, 0)
        peers = watch(three, until=lambda peers: 1 in peers.results)
        assert list(peers.results) == [1]

    def test_a_good_end_ends_nobody(self, three: Attempt) -> None:
        ends(three, 1, 0)
        peers = watch(three, until=lambda peers: 1 in peers.results)
        peers.check()
        assert not peers.failed

    @pytest.mark.parametrize("code", [75, 76])
    def test_after_an_interruption_ranks_get_time_to_save(
        self, three: Attempt, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        ends(three, 1, code, "node 1: interrupted")
        peers = watch(three, until=lambda peers: peers.failed)
        peers.check()
        monkeypatch.setattr("sftjob.train.membership._SAVING_SECONDS", 0)
        with pytest.raises(Judged):
            peers.check()

    def test_logs_and_environments_are_no_results(self, three: Attempt) -> None:
        three.store.put_bytes(keys.environment(1, 1), b"{}")
        three.store.put_bytes(keys.log_tail(1, 2), b"oops")
        ends(three, 1, 0)
        assert list(watch(three, until=lambda peers: bool(peers.results)).results) == [1]

    def test_a_newer_claim_ends_all(self, three: Attempt) -> None:
        claim = Claim(attempt=2, owner="other", time="2026-01-01")
        three.store.put_bytes(keys.claim(2), claim.to_json())
        with pytest.raises(Superseded, match="owner other"):
            watch(three)

    def test_pod_0_must_give_signs_of_life(self, three: Attempt) -> None:
        Lease(three.store, 1).beat()
        with pytest.raises(Interrupted, match="node 0 has given no sign of life for 0 s"):
            watch(replace(three, index=1), lost=0.05)

    def test_while_it_does_nobody_leaves(self, three: Attempt) -> None:
        lease, begin = Lease(three.store, 1), time.monotonic()

        def beat(_peers: Peers) -> bool:
            lease.beat()
            return time.monotonic() - begin > 2.5

        watch(replace(three, index=1), until=beat, lost=2)

    def test_pod_0_does_not_wait_for_its_own(self, three: Attempt) -> None:
        begin = time.monotonic()
        watch(three, until=lambda _peers: time.monotonic() - begin > 0.1, lost=0.01)

    def test_a_store_that_does_not_answer_ends_nothing(self, three: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
        tries: list[int] = []

        def busy(*_: object) -> None:
            tries.append(1)
            raise Unavailable("busy")

        monkeypatch.setattr(FolderStore, "head", busy)
        watch(three, until=lambda _peers: len(tries) > 2)


class TestAgree:
    def test_permanent_before_interrupted_before_crash(self, three: Attempt) -> None:
        ends(three, 1, 76, "node 1: evicted")
        ends(three, 2, 70, "node 2: oops")
        shared = agree(three, CRASH, seconds=10, look_seconds=0.01)
        assert shared == Verdict(ExitCode.INTERRUPTED_UNSAVED, "node 1: evicted; node 0: oops; node 2: oops")
        ends(three, 2, 65, "node 2: bad row")
        assert agree(three, CRASH, seconds=10, look_seconds=0.01).code is ExitCode.DATA

    def test_the_cause_before_its_consequences(self, three: Attempt) -> None:
        ends(three, 1, 70, "node 1: another rank is gone: reset")
        ends(three, 2, 70, "node 2: oops")
        own = Verdict(ExitCode.CRASH, "node 0: another rank is gone: reset")
        assert agree(three, own, seconds=10, look_seconds=0.01).reason.startswith("node 2: oops; node 0: another")

    def test_saved_before_unsaved(self, three: Attempt) -> None:
        ends(three, 1, 75, "node 1: step 3 is saved", step=3)
        ends(three, 2, 76)
        own = Verdict(ExitCode.INTERRUPTED_UNSAVED, "node 0: the grace period ended")
        shared = agree(three, own, seconds=10, look_seconds=0.01)
        assert (shared.code, shared.step) == (ExitCode.INTERRUPTED, 3)

    def test_waits_for_those_that_have_joined_but_not_for_ever(self, three: Attempt) -> None:
        begin = time.monotonic()
        assert agree(three, CRASH, seconds=0.2, look_seconds=0.01) == CRASH
        assert time.monotonic() - begin >= 0.2

    def test_does_not_wait_for_those_that_never_came(self, three: Attempt) -> None:
        three.store.delete(keys.pod(1, 2))
        ends(three, 1, 70)
        begin = time.monotonic()
        agree(three, CRASH, seconds=600, look_seconds=0.01)
        assert time.monotonic() - begin < 300

    def test_a_good_end_of_a_peer_does_not_heal(self, three: Attempt) -> None:
        ends(three, 1, 0)
        ends(three, 2, 0)
        assert agree(three, CRASH, seconds=10, look_seconds=0.01) == CRASH

    def test_a_code_of_another_version_is_a_crash(self, three: Attempt) -> None:
        ends(three, 1, 99)
        ends(three, 2, 0)
        assert agree(three, CRASH, seconds=10, look_seconds=0.01).reason == "node 0: oops; node 1: crashed"


def test_reasons_name_their_node_once(three: Attempt, attempt: Attempt) -> None:
    first = named(three, Verdict(ExitCode.HANG, "node 1 of 3 did not join", 4))
    assert first == Verdict(ExitCode.HANG, "node 0: node 1 of 3 did not join", 4)
    assert named(three, first) == first
    assert named(three, Verdict(ExitCode.DONE)) == Verdict(ExitCode.DONE)
    assert named(attempt, CRASH) == CRASH
    assert named(attempt, Verdict(ExitCode.CRASH, "oops")).reason == "oops"


class TestName:
    def test_it_may_come_late(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        answers = iter([socket.gaierror(-2, "Name or service not known"), socket.gaierror(-3, "try again"), None])

        def look_up(host: str, port: None) -> list[object]:
            assert host == "job-0.service"
            if error := next(answers):
                raise error
            return []

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        await_name("job-0.service", look_seconds=0.001)
        assert not list(answers)
        assert capsys.readouterr().out == "waiting for an address of job-0.service …\n"

    def test_not_for_ever(self) -> None:
        with pytest.raises(Hang) as caught:
            await_name("job-0.invalid", look_seconds=0.001, seconds=0.0)  # RFC 6761: never has an address
        assert "job-0.invalid has had no address for 0 s" in str(caught.value)
        assert "Service" in str(caught.value)

    def test_an_address_is_its_own_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        await_name("127.0.0.1", look_seconds=0.001, seconds=0.0)
        assert not capsys.readouterr().out

    def test_it_is_awaited_before_anything_is_loaded(self, three: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
        order: list[str] = []
        monkeypatch.setattr(supervisor, "await_name", lambda host, **_: order.append(host))
        monkeypatch.setattr(supervisor, "stage", lambda *_, **__: order.append("staged"))
        settings = Settings(spec=Path("s"), work=Path("w"), inputs={}, master_addr="job-0.service")
        run: Any = None
        supervision = supervisor._Supervision(run, three, settings, supervisor.Programs(), StopRequest(Grace(9.0)))
        supervision._peers.stop()
        supervision._stage()
        assert order == ["job-0.service", "staged"]
