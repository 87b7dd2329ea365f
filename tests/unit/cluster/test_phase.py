import json
from typing import Any

import pytest

from sftjob.cluster.objects import read_pod, read_workload
from sftjob.cluster.phase import Phase, State, job_phase, state
from sftjob.cluster.runs import make_run
from sftjob.contract import Component, ExitCode
from tests.unit.cluster.made import RUN, job, jobset, pod


def now(*manifests: dict[str, Any], pods: list[dict[str, Any]] | None = None) -> State:
    return state(make_run(RUN, "ns", manifests, tuple(read_pod(each) for each in pods or [])))


EVAL = job("eval", suspend=True)
DONE = job(ended="Complete")
PENDING = pod(phase="Pending")
NEXT = pod(suffix="b", phase="Pending")
CHILD = f"{RUN}-9f3e-train-w-0"
CASES: list[tuple[str, list[dict[str, Any]], list[dict[str, Any]], Phase, Component]] = [
    ("nothing", [], [], Phase.GONE, Component.TRAIN),
    ("just applied", [job(), EVAL], [], Phase.PENDING, Component.TRAIN),
    ("suspended by hand", [job(suspend=True)], [], Phase.SUSPENDED, Component.TRAIN),
    ("held by Kueue", [job(suspend=True, queue="q")], [], Phase.QUEUED, Component.TRAIN),
    ("waits for a node", [job()], [PENDING], Phase.PENDING, Component.TRAIN),
    ("one of two runs", [job(pods=2)], [pod(), pod(index=1, phase="Pending")], Phase.STARTING, Component.TRAIN),
    ("all run", [job(pods=2), EVAL], [pod(), pod(index=1)], Phase.TRAINING, Component.TRAIN),
    ("one has finished", [job(pods=2)], [pod(exit_code=0), pod(index=1)], Phase.TRAINING, Component.TRAIN),
    ("the only one has finished", [job()], [pod(exit_code=0)], Phase.TRAINING, Component.TRAIN),
    ("after a crash", [job(failed=1)], [pod(exit_code=1), NEXT], Phase.RESTARTING, Component.TRAIN),
    ("after an eviction", [job()], [pod(exit_code=75)], Phase.RESTARTING, Component.TRAIN),
    ("a pod is stopping", [job()], [pod(deleting=True)], Phase.RESTARTING, Component.TRAIN),
    ("a gang has lost one", [job(pods=2)], [pod(), pod(index=1, exit_code=1)], Phase.RESTARTING, Component.TRAIN),
    ("a gang makes its second pod", [job(pods=2)], [pod()], Phase.STARTING, Component.TRAIN),
    ("a permanent error", [job(pods=2)], [pod(), pod(index=1, exit_code=65)], Phase.STOPPING, Component.TRAIN),
    ("being deleted", [job(deleting=True)], [pod(deleting=True)], Phase.STOPPING, Component.TRAIN),
    ("no evaluation", [DONE], [], Phase.DONE, Component.TRAIN),
    ("trained", [DONE, EVAL], [], Phase.TRAINED, Component.EVAL),
    ("evaluation in a queue", [DONE, job("eval", suspend=True, queue="q")], [], Phase.QUEUED, Component.EVAL),
    ("evaluation pending", [DONE, job("eval")], [pod("eval", phase="Pending")], Phase.PENDING, Component.EVAL),
    ("evaluating", [DONE, job("eval")], [pod("eval")], Phase.EVALUATING, Component.EVAL),
    ("evaluated, says the pod", [DONE, job("eval")], [pod("eval", exit_code=0)], Phase.EVALUATING, Component.EVAL),
    ("all done", [DONE, job("eval", ended="Complete")], [], Phase.DONE, Component.EVAL),
    ("training's Job is gone by its TTL", [job("eval", ended="Complete")], [], Phase.DONE, Component.EVAL),
    ("training's Job was deleted", [EVAL], [], Phase.STOPPED, Component.TRAIN),
    ("training's Job is gone, the gate decides", [EVAL, job("gate")], [], Phase.TRAINED, Component.TRAIN),
    ("the gate has started nothing", [EVAL, job("gate", ended="Complete")], [], Phase.STOPPED, Component.TRAIN),
    ("evaluation deleted by the gate", [DONE, job("gate", ended="Failed")], [], Phase.FAILED, Component.GATE),
    ("evaluation deleted, gate at work", [DONE, job("gate")], [], Phase.TRAINED, Component.TRAIN),
    ("evaluation deleted by a person", [DONE, job("gate", ended="Complete")], [], Phase.DONE, Component.TRAIN),
    ("evaluation failed", [DONE, job("eval", ended="Failed")], [], Phase.FAILED, Component.EVAL),
    ("JobSet", [jobset(pods=2)], [pod(job_name=CHILD), pod(index=1, job_name=CHILD)], Phase.TRAINING, Component.TRAIN),
    ("JobSet failed", [jobset(ended="Failed")], [], Phase.FAILED, Component.TRAIN),
]


@pytest.mark.parametrize(
    ("manifests", "pods", "phase", "component"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_phase(manifests: list[dict[str, Any]], pods: list[dict[str, Any]], phase: Phase, component: Component) -> None:
    found = now(*manifests, pods=pods)

    assert (found.phase, found.component) == (phase, component)


def failed(reason: str, message: str, *pods: dict[str, Any], **status: Any) -> State:
    return now(job(ended="Failed", reason=reason, message=message, **status), pods=list(pods))


class TestFailure:
    @pytest.mark.parametrize("code", [code for code in ExitCode if code])
    def test_every_code_of_the_table_is_found_and_explained(self, code: ExitCode) -> None:
        found = failed("PodFailurePolicy", "", pod(exit_code=code.value))

        assert (found.phase, found.exit_code, found.reason) == (Phase.FAILED, code, code.meaning)

    def test_the_pods_own_words_come_first(self) -> None:
        left = json.dumps({"exit_code": 64, "reason": "job.yaml:3: method.r: wrong"})

        assert failed("PodFailurePolicy", "", pod(exit_code=64, left=left)).reason == "job.yaml:3: method.r: wrong"

    def test_in_a_gang_the_permanent_code_decides(self) -> None:
        peers = [pod(exit_code=70, minute=9), pod(index=1, exit_code=65, minute=3), pod(index=2, exit_code=75)]

        assert failed("PodFailurePolicy", "", *peers).exit_code == 65

    def test_without_pods_the_controllers_sentence_tells(self) -> None:
        said = "Container trainer for pod ns/x failed with exit code 78 matching FailJob rule at index 0"
        found = failed("PodFailurePolicy", said)

        assert (found.exit_code, found.reason) == (78, ExitCode.CONFIGURATION.meaning)

    def test_out_of_memory(self) -> None:
        found = failed("BackoffLimitExceeded", "", pod(exit_code=137, ended_because="OOMKilled"), failed=4)

        assert found.exit_code == 137
        assert found.reason.startswith("gave up after 4 crashes; the last: out of memory: raise resources.memory")

    def test_a_deadline(self) -> None:
        found = failed("DeadlineExceeded", "Job was active longer than specified deadline")

        assert (found.exit_code, found.reason) == (
            None,
            "the deadline (kubernetes.active_deadline_seconds) has passed",
        )

    def test_the_last_crash_counts(self) -> None:
        found = failed("BackoffLimitExceeded", "", pod(exit_code=70, minute=1), pod(exit_code=82, minute=5), failed=2)

        assert found.exit_code == 82

    def test_crashes_of_a_gang_are_counted_once(self) -> None:
        found = now(job(pods=4, ended="Failed", reason="BackoffLimitExceeded", failed=16))

        assert found.reason.startswith("gave up after 4 crashes")


class TestRevisions:
    def test_the_newest_counts(self) -> None:
        old, new = job(revision="0000", ended="Failed"), job(revision="1111", minute=5)
        run = make_run(RUN, "ns", [new, old], ())

        assert (run.revision, run.other_revisions) == ("1111", ("0000",))
        assert state(run).phase is Phase.PENDING
        assert len(run.workloads) == 2


@pytest.mark.parametrize(
    ("manifest", "phase"),
    [
        (job(), Phase.PENDING),
        (job(ready=1), Phase.TRAINING),
        (job(pods=2, ready=1), Phase.STARTING),
        (job(failed=1), Phase.RESTARTING),
        (job(suspend=True), Phase.SUSPENDED),
        (job(suspend=True, queue="q"), Phase.QUEUED),
        (job(deleting=True, ready=1), Phase.STOPPING),
        (job(ended="Complete"), Phase.DONE),
        (job(ended="Failed"), Phase.FAILED),
        (jobset(ready=1), Phase.TRAINING),
    ],
)
def test_phase_without_pods(manifest: dict[str, Any], phase: Phase) -> None:
    assert job_phase(read_workload(manifest)) is phase
