from collections.abc import Callable
from typing import Any

import pytest

from sftjob.app import logs
from sftjob.app.logs import follow_logs, show_logs
from sftjob.cluster import run_watch
from sftjob.cluster.kinds import Kind
from sftjob.contract import Component
from sftjob.errors import ClusterUnavailable, ObjectMissing
from tests.unit.app.on_cluster import Lines, target
from tests.unit.cluster.fake import FakeCluster
from tests.unit.cluster.made import RUN, job, pod

TRAIN = f"{RUN}-9f3e-train"
FIRST, SECOND = f"{TRAIN}-0-x7k2p", f"{TRAIN}-0-zzzzz"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(run_watch, "_SETTLE_SECONDS", 0.02)


def line(second: int, text: str, fraction: int = 1) -> str:
    """As the kubelet writes it with its time."""
    return f"2026-11-24T10:00:{second:02d}.{fraction:09d}Z {text}"


def cluster(*jobs: dict[str, Any], pods: list[dict[str, Any]]) -> FakeCluster:
    made = FakeCluster()
    made.put(Kind.JOB, *jobs)
    made.put(Kind.POD, *pods)
    return made


def followed(made: FakeCluster, then: dict[str, Callable[[], None]], **options: Any) -> tuple[Lines, Lines]:
    say, note = Lines(), Lines()
    for beginning, do in then.items():
        say.then(beginning, do)
    follow_logs(target(made), say, note, **options)
    return say, note


class TestShowing:
    def test_every_line_has_its_pods_index(self) -> None:
        pods = [pod(exit_code=0), pod(index=1, suffix="b", exit_code=0)]
        made = cluster(job(pods=2), pods=pods)
        made.logs = {FIRST: [line(1, "one"), line(2, "")], f"{TRAIN}-1-b": [line(1, "two words")]}
        say = Lines()
        show_logs(target(made), say, Lines())

        assert say == ["[0] one", "[0] ", "[1] two words"]

    def test_a_successor_has_its_name_in_front(self) -> None:
        made = cluster(job(), pods=[pod(suffix="zzzzz", minute=5), pod(exit_code=75, minute=1)])
        made.logs = {FIRST: [line(1, "first")], SECOND: [line(2, "second")]}
        say = Lines()
        show_logs(target(made), say, Lines())

        assert say == ["[0] first", "[0 zzzzz] second"]

    def test_only_a_component(self) -> None:
        made = cluster(job(), pods=[pod(), pod("eval"), pod("gate")])
        made.logs = {each: [line(1, each)] for each in (FIRST, f"{RUN}-9f3e-eval-0-x7k2p", f"{RUN}-9f3e-gate-0-x7k2p")}
        say, both = Lines(), Lines()
        show_logs(target(made), say, Lines(), component=Component.GATE, tail_lines=3)
        show_logs(target(made), both, Lines())

        assert [each[:6] for each in say] == ["[gate]"]
        assert [each[:6] for each in both] == ["[0] de", "[eval]"]
        assert made.done[0][3]["tail_lines"] == 3

    def test_what_has_not_started_is_noted(self) -> None:
        note = Lines()
        show_logs(target(cluster(job(), pods=[pod(phase="Pending")])), Lines(), note)

        assert note == [f"note: {FIRST} has not started; sftjob status {RUN} says why"]

    def test_no_pods(self) -> None:
        note = Lines()
        show_logs(target(cluster(job(), pods=[])), Lines(), note)

        assert note == [f"note: no pod of {RUN} is there; sftjob status {RUN} says why"]

    @pytest.mark.parametrize("show", [show_logs, follow_logs])
    def test_no_such_run(self, show: Any) -> None:
        with pytest.raises(ObjectMissing, match=f"no run {RUN}"):
            show(target(FakeCluster()), Lines(), Lines())


class TestFollowing:
    def test_ends_with_the_run(self) -> None:
        made = cluster(job(ended="Complete"), pods=[pod(exit_code=0)])
        made.logs = {FIRST: [line(1, "one")]}

        assert followed(made, {})[0] == ["[0] one"]

    def test_follows_the_pod_that_replaces_another(self) -> None:
        made = cluster(job(), pods=[pod(exit_code=75)])
        made.logs = {FIRST: [line(1, "one")], SECOND: [line(2, "two")]}

        say, _ = followed(
            made,
            {
                "[0] one": lambda: made.put(Kind.POD, pod(suffix="zzzzz", exit_code=0)),
                "[0 zzzzz]": lambda: made.put(Kind.JOB, job(ended="Complete")),
            },
        )
        assert say == ["[0] one", "[0 zzzzz] two"]

    def test_a_pod_that_is_told_after_the_end_of_its_job_is_not_missed(self) -> None:
        made = cluster(job(ended="Complete"), pods=[])
        made.objects[(Kind.POD, FIRST)] = pod(exit_code=0)
        made.logs = {FIRST: [line(1, "one")]}
        made.watch = _without_pods(made.watch)  # type: ignore[method-assign]

        assert followed(made, {})[0] == ["[0] one"]

    def test_a_lost_connection_goes_on_where_it_broke(self) -> None:
        lost = ClusterUnavailable("lost")
        made = cluster(job(ended="Complete"), pods=[pod(exit_code=0)])
        again = [line(2, "two"), line(2, "two too"), line(2, "new", 2), line(3, "three")]
        made.logs = {FIRST: [line(1, "one"), line(2, "two"), line(2, "two too"), lost, lost, *again]}

        assert followed(made, {})[0] == ["[0] one", "[0] two", "[0] two too", "[0] new", "[0] three"]
        assert [each[3]["since_time"] for each in made.done] == [None, "2026-11-24T10:00:02Z", "2026-11-24T10:00:02Z"]

    def test_a_log_that_ends_before_its_container_is_taken_up_again(self) -> None:
        made = cluster(job(ended="Complete"), pods=[pod()])
        made.logs = {FIRST: [line(1, "one")]}

        def more() -> None:
            made.logs[FIRST] = [line(1, "one"), line(5, "two")]
            made.put(Kind.POD, pod(exit_code=0))

        assert followed(made, {"[0] one": more})[0] == ["[0] one", "[0] two"]

    def test_a_log_that_stays_lost_ends_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(logs, "_PATIENCE_SECONDS", -1.0)
        made = cluster(job(), pods=[pod()])
        made.logs = {FIRST: [ClusterUnavailable("lost"), ClusterUnavailable("lost for good")]}

        with pytest.raises(ClusterUnavailable, match="lost for good"):
            followed(made, {})

    def test_the_training_alone_ends_with_it(self) -> None:
        made = cluster(job(ended="Complete"), job("eval"), job("gate"), pods=[pod(exit_code=0), pod("eval")])
        made.logs = {FIRST: [line(1, "one")]}

        assert followed(made, {}, component=Component.TRAIN)[0] == ["[0] one"]

    def test_an_evaluation_that_nobody_starts_is_not_waited_for(self) -> None:
        made = cluster(job(ended="Complete"), job("eval", suspend=True), pods=[])

        assert followed(made, {})[1] == [f"note: trained; the evaluation starts with: sftjob wait {RUN}"]

    def test_bytes_that_are_no_text_are_replaced(self) -> None:
        made = cluster(job(ended="Complete"), pods=[pod(exit_code=0)])
        made.log = lambda *_, **__: iter([b"2026-11-24T10:00:01.000000001Z \xff"])  # type: ignore[method-assign]

        assert followed(made, {})[0] == ["[0] \ufffd"]


def _without_pods(watch: Any) -> Any:
    """A watch that is slow to tell of pods."""

    def slow(kind: Kind, **options: Any) -> Any:
        return iter([("BOOKMARK", {})]) if kind is Kind.POD else watch(kind, **options)

    return slow
