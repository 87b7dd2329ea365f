from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sftjob.app import wait as waiting
from sftjob.app.wait import TimedOut, wait
from sftjob.cluster import run_watch
from sftjob.cluster.kinds import Kind
from sftjob.contract import Env, ExitCode, keys
from sftjob.errors import ObjectMissing
from sftjob.storage import FolderStore
from tests.unit.app.on_cluster import Lines, authored, target, trained_to
from tests.unit.cluster.fake import FakeCluster
from tests.unit.cluster.made import RUN, job, jobset, pod

TRAIN, EVAL = f"{RUN}-9f3e-train", f"{RUN}-9f3e-eval"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(waiting, "_GONE_SECONDS", 0.1)
    monkeypatch.setattr(run_watch, "_SETTLE_SECONDS", 0.02)


def cluster(*jobs: dict[str, Any]) -> FakeCluster:
    made = FakeCluster()
    made.put(Kind.JOB, *jobs)
    return made


def test_done_is_0() -> None:
    assert wait(target(cluster(job(ended="Complete"))), Lines()) is ExitCode.DONE


def test_goes_through_training_and_evaluation() -> None:
    made, lines = cluster(job(), job("eval", suspend=True), job("gate")), Lines()
    made.put(Kind.POD, pod())

    def trained() -> None:
        made.put(Kind.POD, pod(exit_code=0))
        made.put(Kind.JOB, job(ended="Complete"))

    def started() -> None:
        made.put(Kind.POD, pod("eval"))
        made.put(Kind.JOB, job("eval"))

    lines.then("phase    training", trained)
    lines.then("phase    trained; the evaluation has not started", started)
    lines.then("phase    evaluating", lambda: made.put(Kind.JOB, job("eval", ended="Complete")))

    assert wait(target(made), lines, timeout=20) is ExitCode.DONE
    assert [line for line in lines if line.startswith("phase")][-1] == "phase    done"
    assert not [each for each in made.done if each[0] == "patch"], "the gate's work is left to the gate"


@pytest.mark.parametrize(("code", "expected"), [(64, 64), (80, 80), (83, 83), (1, 70), (137, 70), (143, 70)], ids=str)
def test_a_failed_job_ends_it_with_its_code(code: int, expected: int) -> None:
    made = cluster(job(ended="Failed", reason="PodFailurePolicy"), job("eval", suspend=True))
    made.put(Kind.POD, pod(exit_code=code))

    assert wait(target(made), Lines(), timeout=20) == expected


def test_a_failure_that_nobody_explains_is_a_crash() -> None:
    lines = Lines()

    assert wait(target(cluster(job(ended="Failed", reason="DeadlineExceeded"))), lines) is ExitCode.CRASH
    assert lines == ["phase    failed: the deadline (kubernetes.active_deadline_seconds) has passed"]


def test_a_failed_evaluation_ends_it_with_its_code() -> None:
    made = cluster(job(ended="Complete"), job("eval", ended="Failed", reason="PodFailurePolicy"))
    made.put(Kind.POD, pod("eval", exit_code=66))

    assert wait(target(made), Lines()) is ExitCode.INPUT


@pytest.mark.parametrize(("ended", "expected"), [("Completed", ExitCode.DONE), ("Failed", ExitCode.DATA)])
def test_a_jobset(ended: str, expected: ExitCode) -> None:
    made = FakeCluster(unknown=set())
    made.put(Kind.JOBSET, jobset(ended=ended, message="Container trainer failed with exit code 65 matching"))

    assert wait(target(made), Lines()) is expected


def test_a_job_that_is_deleted_ends_it() -> None:
    made, lines = cluster(job(), job("eval", suspend=True)), Lines()
    made.put(Kind.POD, pod())

    def deleted() -> None:
        made.remove(Kind.JOB, TRAIN)
        made.remove(Kind.JOB, EVAL)

    lines.then("phase    training", deleted)
    assert wait(target(made), lines, timeout=20) is ExitCode.CRASH
    assert lines[-1] == "deleted  its Jobs are gone before it was done"


def test_a_job_that_is_replaced_does_not() -> None:
    made, lines = cluster(job()), Lines()
    lines.then("phase    pending", lambda: made.remove(Kind.JOB, TRAIN))
    lines.then("phase    gone", lambda: made.put(Kind.JOB, job(ended="Complete")))

    assert wait(target(made), lines, timeout=20) is ExitCode.DONE


def test_jobs_that_are_gone_for_their_age_leave_the_stores_word(tmp_path: Path) -> None:
    """With `ttl_seconds_after_finished` the training's Job goes first; its evaluation may still be to be done."""
    authored_spec = {"storage": {"uri": str(tmp_path)}, "kubernetes": {"evaluation": "cli"}}
    made, lines = cluster(job("eval", suspend=True)), Lines()
    authored(made, authored_spec)
    trained_to(tmp_path, 100)
    FolderStore(tmp_path).at(RUN).put_bytes(keys.SUCCESS, b"{}")

    def evaluated() -> None:
        made.put(Kind.JOB, job("eval", ended="Complete"))

    lines.then("started  the evaluation", evaluated)

    assert wait(target(made), lines, timeout=20) is ExitCode.DONE


def test_no_such_run() -> None:
    with pytest.raises(ObjectMissing, match=f"no run {RUN} in namespace ns"):
        wait(target(cluster()), Lines())


def test_the_time_is_up() -> None:
    with pytest.raises(TimedOut, match=rf"{RUN} goes on \(pending\)"):
        wait(target(cluster(job())), Lines(), timeout=0.1)


def test_a_reason_is_told_when_it_lasts() -> None:
    made, lines = cluster(job()), Lines()
    made.put(Kind.POD, pod(waiting="CreateContainerConfigError", message='secret "s" not found'))
    lines.then("why", lambda: made.put(Kind.JOB, job(ended="Complete")))

    assert wait(target(made), lines, timeout=20) is ExitCode.DONE
    assert sum(line.startswith("why      ") and "needs Secret s" in line for line in lines) == 1


def test_a_reason_that_passes_is_not_told() -> None:
    made, lines = cluster(job()), Lines()
    made.put(Kind.POD, pod(phase="Pending"))
    lines.then("phase    pending", lambda: made.put(Kind.POD, pod()))
    lines.then("phase    training", lambda: made.put(Kind.JOB, job(ended="Complete")))

    assert wait(target(made), lines, timeout=20) is ExitCode.DONE
    assert not [line for line in lines if line.startswith("why")]


class TestEvaluation:
    def run(self, made: FakeCluster, then: Callable[[], None] | None = None) -> tuple[ExitCode, Lines]:
        lines = Lines()
        lines.then("started", then or (lambda: None))
        return wait(target(made), lines, timeout=20), lines

    def test_is_started_where_the_spec_leaves_it_to_the_client(self) -> None:
        made = cluster(job(ended="Complete"), job("eval", suspend=True))
        authored(made, {"kubernetes": {"evaluation": "cli"}})
        code, _ = self.run(made, lambda: made.put(Kind.JOB, job("eval", ended="Complete")))

        assert code is ExitCode.DONE
        assert made.done == [("patch", Kind.JOB, EVAL, {"spec": {"suspend": False}})]

    def test_is_handed_to_the_queue_under_kueue(self) -> None:
        made = cluster(job(ended="Complete", queue="team"), job("eval", suspend=True))
        authored(made, {"kubernetes": {"evaluation": "cli"}})
        self.run(made, lambda: made.put(Kind.JOB, job("eval", ended="Complete")))

        label = {"kueue.x-k8s.io/queue-name": "team"}
        assert made.done == [("patch", Kind.JOB, EVAL, {"metadata": {"labels": label}})]

    def test_is_left_to_a_gate_that_is_at_work(self) -> None:
        made = cluster(job(ended="Complete"), job("eval", suspend=True), job("gate"))
        authored(made, {"kubernetes": {"evaluation": "cli"}})

        with pytest.raises(TimedOut):
            wait(target(made), Lines(), timeout=0.3)
        assert made.done == []

    def test_is_not_waited_for_when_the_gate_has_ended_without_starting_it(self) -> None:
        made = cluster(job(ended="Complete"), job("eval", suspend=True), job("gate", ended="Failed"))
        made.put(Kind.POD, pod("gate", exit_code=77))
        code, lines = self.run(made)

        assert code is ExitCode.CREDENTIALS
        assert lines[-1].startswith("stuck    the gate has ended and the evaluation is still suspended; sftjob submit")

    def test_is_not_waited_for_without_a_gate(self) -> None:
        code, lines = self.run(cluster(job(ended="Complete"), job("eval", suspend=True)))

        assert code is ExitCode.CRASH
        assert lines[-1].startswith("stuck    no gate is there")


def test_progress_is_told_while_it_trains(tmp_path: Path) -> None:
    made, lines = cluster(job(env={Env.STORAGE_URI.value: str(tmp_path)})), Lines()
    made.put(Kind.POD, pod())
    trained_to(tmp_path, 500, committed=(400,))
    lines.then("         step", lambda: made.put(Kind.JOB, job(ended="Complete")))

    assert wait(target(made), lines, timeout=20) is ExitCode.DONE
    assert any(line.startswith("         step 500 of 1,000 (50.0 %), 16 min 40 s left; loss 2.0000") for line in lines)


def test_a_store_out_of_reach_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_PROGRESS_SECONDS", 0.0)
    made, lines = cluster(job()), Lines()
    made.put(Kind.POD, pod())

    with pytest.raises(TimedOut):
        wait(target(made), lines, timeout=0.5)
    assert sum(line.startswith("note: without step") for line in lines) == 1
