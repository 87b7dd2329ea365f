"""Every way in which training can end, and what the gate does about it."""

import pytest

from sftjob.contract import ExitCode, JobAction
from sftjob.gate.decide import PATIENCE_SECONDS, SEVERAL_LOOKS, Act, Decision, Past, decide
from sftjob.gate.state import EvalState, Marks, Phase, TrainState
from sftjob.records import Result

UID = "5c1e"
WAITING = EvalState(phase=Phase.SUSPENDED)
STARTED = EvalState(phase=Phase.RUNNING)
RUNNING = TrainState(phase=Phase.RUNNING, uid=UID, ready=1, pods=1)
COMPLETE = TrainState(phase=Phase.COMPLETE, uid=UID, pods=1)
GONE = TrainState()
SEEN = Past(seconds=1000, train_looks=SEVERAL_LOOKS, eval_looks=SEVERAL_LOOKS, train_seen=True, eval_seen=True)
FIRST = Past()
SUCCESS = Marks(success=True)


def failed(why: str) -> TrainState:
    return TrainState(phase=Phase.FAILED, uid=UID, why=why, pods=1)


def mark(owner: str, code: int = 65) -> Marks:
    result = Result(attempt=1, owner=owner, exit_code=code, reason="row 7 is empty", time="2026-01-01T00:00:00Z")
    return Marks(failed=result)


def seen(
    train: TrainState, marks: Marks | None = None, evaluation: EvalState = WAITING, *, queue: str = ""
) -> Decision:
    """What is decided about objects that have been looked at before."""
    return decide(train, evaluation, marks or Marks(), SEEN, queue=queue)


class TestTrainingThatSucceeded:
    @pytest.mark.parametrize(
        "train",
        [COMPLETE, RUNNING, failed("BackoffLimitExceeded"), GONE, TrainState(phase=Phase.SUSPENDED, uid=UID)],
        ids=lambda train: train.phase.value,
    )
    def test_success_wins_over_whatever_the_job_says(self, train: TrainState) -> None:
        assert seen(train, SUCCESS).act is Act.RESUME
        assert decide(train, WAITING, SUCCESS, FIRST).act is Act.RESUME

    def test_success_wins_over_a_failure_in_the_store(self) -> None:
        both = Marks(success=True, failed=mark(UID).failed)

        assert seen(failed("PodFailurePolicy"), both).act is Act.RESUME

    def test_an_evaluation_that_runs_is_left_alone(self) -> None:
        decision = seen(COMPLETE, SUCCESS, STARTED)

        assert decision.act is Act.WAIT
        assert "under way" in decision.reason

    def test_an_evaluation_that_an_apply_has_suspended_again_is_resumed_again(self) -> None:
        """A second `kubectl apply` writes what was rendered, `suspend: true`."""
        assert [seen(COMPLETE, SUCCESS, each).act for each in (STARTED, WAITING)] == [Act.WAIT, Act.RESUME]

    def test_under_kueue_the_queue_is_named_and_suspend_is_left_alone(self) -> None:
        queued = EvalState(phase=Phase.SUSPENDED, queue="team")

        assert seen(COMPLETE, SUCCESS, queue="team").act is Act.ENQUEUE
        assert seen(COMPLETE, SUCCESS, queued, queue="team").act is Act.WAIT
        assert seen(COMPLETE, SUCCESS, queued, queue="other").act is Act.ENQUEUE
        assert seen(COMPLETE, SUCCESS, STARTED, queue="team").act is Act.WAIT

    def test_it_is_not_resumed_before_success(self) -> None:
        assert seen(RUNNING).act is Act.WAIT
        assert seen(RUNNING, queue="team").act is Act.WAIT


ENDS = [
    *(f"PodFailurePolicy: exit code {code.value}" for code in ExitCode if code.action is JobAction.FAIL_JOB),
    "BackoffLimitExceeded: Job has reached the specified backoff limit",  # crashes, or kills for memory
    "DeadlineExceeded: Job was active longer than specified deadline",
    "FailedJobs: jobset failed due to one or more job failures",
    "",
]


class TestTrainingThatFailed:
    @pytest.mark.parametrize("why", ENDS)
    def test_the_eval_job_goes_however_the_job_failed(self, why: str) -> None:
        decision = seen(failed(why))

        assert (decision.act, decision.code) == (Act.DELETE, ExitCode.DONE)
        assert why in decision.reason

    @pytest.mark.parametrize("code", [code for code in ExitCode if code.action is JobAction.FAIL_JOB])
    def test_the_failure_of_this_job_in_the_store_counts_before_the_job_says_so(self, code: ExitCode) -> None:
        decision = seen(RUNNING, mark(UID, code))

        assert (decision.act, decision.code) == (Act.DELETE, ExitCode.DONE)
        assert f"exit code {code.value}: row 7 is empty" in decision.reason

    @pytest.mark.parametrize("train", [RUNNING, COMPLETE, TrainState(phase=Phase.SUSPENDED, uid=UID)])
    def test_the_failure_of_an_earlier_job_does_not(self, train: TrainState) -> None:
        past = Past(seconds=1000, train_looks=1, eval_looks=9, train_seen=True, eval_seen=True)

        assert decide(train, WAITING, mark("of-an-earlier-job"), past).act is Act.WAIT

    def test_nor_does_one_that_there_is_no_job_to_compare_with(self) -> None:
        assert decide(GONE, WAITING, mark(""), FIRST).act is Act.WAIT

    def test_an_evaluation_that_somebody_has_started_by_hand_goes_as_well(self) -> None:
        assert seen(failed("BackoffLimitExceeded"), evaluation=STARTED).act is Act.DELETE

    def test_a_job_that_says_complete_without_success_is_asked_several_times(self) -> None:
        past = Past(seconds=1000, train_looks=SEVERAL_LOOKS - 1, eval_looks=9, train_seen=True, eval_seen=True)
        decision = seen(COMPLETE)

        assert decide(COMPLETE, WAITING, Marks(), past).act is Act.WAIT
        assert (decision.act, decision.code) == (Act.DELETE, ExitCode.INPUT)
        assert "_SUCCESS is not in the store" in decision.reason


class TestTrainingThatIsNotThere:
    def test_a_job_that_was_deleted_takes_the_eval_job_along(self) -> None:
        decision = seen(GONE)

        assert (decision.act, decision.code) == (Act.DELETE, ExitCode.DONE)
        assert "deleted before it was done" in decision.reason

    def test_a_job_that_is_deleted_and_applied_again_is_awaited(self) -> None:
        past = Past(seconds=1000, train_looks=SEVERAL_LOOKS - 1, eval_looks=9, train_seen=True, eval_seen=True)

        assert decide(GONE, WAITING, Marks(), past).act is Act.WAIT

    def test_a_job_that_is_not_applied_yet_is_awaited(self) -> None:
        early = Past(seconds=PATIENCE_SECONDS - 1, train_looks=50)
        late = Past(seconds=PATIENCE_SECONDS, train_looks=50)

        assert decide(GONE, WAITING, Marks(), early).act is Act.WAIT
        assert decide(GONE, WAITING, Marks(), late).act is Act.DELETE
        assert decide(GONE, WAITING, Marks(), late).code is ExitCode.INPUT


class TestTrainingThatGoesOn:
    @pytest.mark.parametrize(
        ("train", "words"),
        [
            (RUNNING, "1 of 1 pods run"),
            (TrainState(phase=Phase.SUSPENDED, uid=UID), "suspended"),
            # An image that cannot be pulled never fails a Job, and the gate may not look at pods.
            (TrainState(phase=Phase.RUNNING, uid=UID, pods=2), "0 of 2 pods run; `kubectl describe pods` says why"),
        ],
    )
    def test_is_awaited_however_long_it_takes(self, train: TrainState, words: str) -> None:
        decision = seen(train)

        assert decision.act is Act.WAIT
        assert words in decision.reason


class TestAnEvaluationThatNeedsNoGate:
    @pytest.mark.parametrize("phase", [Phase.COMPLETE, Phase.FAILED])
    @pytest.mark.parametrize("train", [COMPLETE, GONE, failed("BackoffLimitExceeded")], ids=lambda train: train.phase)
    @pytest.mark.parametrize("marks", [SUCCESS, Marks()])
    def test_an_end_is_said_and_the_gate_ends(self, phase: Phase, train: TrainState, marks: Marks) -> None:
        decision = seen(train, marks, EvalState(phase=phase, why="BackoffLimitExceeded: 3"))

        assert (decision.act, decision.code) == (Act.END, ExitCode.DONE)
        assert decision.reason == f"the evaluation is {phase.value} (BackoffLimitExceeded: 3)"

    def test_one_that_is_deleted_ends_the_gate(self) -> None:
        for train, marks in ((COMPLETE, SUCCESS), (RUNNING, Marks())):
            decision = seen(train, marks, EvalState())
            assert (decision.act, decision.code) == (Act.END, ExitCode.DONE)

    def test_one_that_is_deleted_and_applied_again_is_awaited(self) -> None:
        past = Past(seconds=1000, train_looks=9, eval_looks=SEVERAL_LOOKS - 1, train_seen=True, eval_seen=True)

        assert decide(COMPLETE, EvalState(), SUCCESS, past).act is Act.WAIT
        assert decide(RUNNING, EvalState(), Marks(), past).act is Act.WAIT

    def test_one_that_is_not_applied_yet_is_awaited(self) -> None:
        early = Past(seconds=PATIENCE_SECONDS - 1, train_looks=50, eval_looks=50, train_seen=True)
        late = Past(seconds=PATIENCE_SECONDS, train_looks=50, eval_looks=50, train_seen=True)

        for train, marks in ((COMPLETE, SUCCESS), (RUNNING, Marks())):
            assert decide(train, EvalState(), marks, early).act is Act.WAIT
            decision = decide(train, EvalState(), marks, late)
            assert (decision.act, decision.code) == (Act.END, ExitCode.INPUT)
