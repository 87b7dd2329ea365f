"""Jobs and JobSets as the API server writes them."""

from typing import Any

import pytest

from sftjob.gate.state import EvalState, Phase, TrainState, eval_state, train_state


def job(*conditions: dict[str, str], suspend: bool = False, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "run-train", "uid": "u1", "labels": {"app.kubernetes.io/name": "sftjob"}},
        "spec": {"parallelism": 2, "suspend": suspend},
        "status": {"conditions": [*conditions], **status},
    }


def condition(kind: str, status: str = "True", **more: str) -> dict[str, str]:
    return {"type": kind, "status": status, **more}


JOBSET = {
    "metadata": {"name": "run-train", "uid": "u2"},
    "spec": {"replicatedJobs": [{"name": "n", "replicas": 1, "template": {"spec": {"parallelism": 4}}}]},
}


class TestPhases:
    @pytest.mark.parametrize(
        ("found", "phase"),
        [
            (None, Phase.ABSENT),
            (job(), Phase.RUNNING),
            ({"metadata": {}}, Phase.RUNNING),
            (job(suspend=True), Phase.SUSPENDED),
            (job(condition("Complete")), Phase.COMPLETE),
            (job(condition("Completed")), Phase.COMPLETE),
            (job(condition("Failed")), Phase.FAILED),
            # Suspended after its end, by a second apply: it has ended all the same.
            (job(condition("Complete"), suspend=True), Phase.COMPLETE),
            (job(condition("Failed"), suspend=True), Phase.FAILED),
            (job(condition("Failed", status="False")), Phase.RUNNING),
        ],
    )
    def test_are_told_by_conditions_that_hold(self, found: dict[str, Any] | None, phase: Phase) -> None:
        assert train_state(found).phase is phase
        assert eval_state(found).phase is phase

    @pytest.mark.parametrize("interim", ["FailureTarget", "SuccessCriteriaMet", "Suspended"])
    def test_an_announcement_is_no_end(self, interim: str) -> None:
        assert train_state(job(condition(interim))).phase is Phase.RUNNING

    def test_a_suspension_is_seen_before_its_condition(self) -> None:
        assert eval_state(job(condition("Suspended", status="False"), suspend=True)).phase is Phase.SUSPENDED


class TestTraining:
    def test_a_failure_says_why(self) -> None:
        reason = condition("Failed", reason="PodFailurePolicy", message="Container trainer failed with exit code 64")

        state = train_state(job(condition("FailureTarget", reason="X"), reason))

        assert state.why == "PodFailurePolicy: Container trainer failed with exit code 64"
        assert state.uid == "u1"

    def test_pods_of_a_job_are_counted(self) -> None:
        state = train_state(job(active=2, ready=1))

        assert (state.ready, state.pods) == (1, 2)

    def test_pods_of_a_jobset_are_those_of_its_jobs(self) -> None:
        waiting = train_state({**JOBSET, "status": {"replicatedJobsStatus": [{"name": "n", "active": 1, "ready": 0}]}})
        running = train_state({**JOBSET, "status": {"replicatedJobsStatus": [{"name": "n", "active": 1, "ready": 1}]}})

        assert (waiting.ready, waiting.pods, waiting.uid) == (0, 4, "u2")
        assert (running.ready, running.pods) == (4, 4)

    def test_one_that_is_being_deleted_still_trains(self) -> None:
        found = job(active=1)
        found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

        assert train_state(found).phase is Phase.RUNNING

    def test_nothing_is_an_empty_state(self) -> None:
        assert train_state(None) == TrainState()


class TestEvaluation:
    def test_its_queue_is_a_label(self) -> None:
        found = job(suspend=True)
        found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "team"

        assert eval_state(found) == EvalState(phase=Phase.SUSPENDED, queue="team")

    def test_one_that_is_being_deleted_is_absent(self) -> None:
        found = job(suspend=True)
        found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

        assert eval_state(found) == EvalState()
