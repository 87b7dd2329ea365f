"""What submit does about what is there: the whole table."""

from collections.abc import Iterable
from typing import Any

import pytest

from sftjob.app.submission import Durable, Submission, component_of, decide
from sftjob.cluster.fields import text
from sftjob.cluster.objects import Workload, read_workload
from sftjob.place import place
from sftjob.render import Manifest, render
from sftjob.spec import JobSpec, Profile, run_id

NOTHING = Durable(trained=False, evaluated=False)
TRAINED = Durable(trained=True, evaluated=False)
EVALUATED = Durable(trained=True, evaluated=True)


def make_spec(**blocks: Any) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "job",
            "model": {"hub": "a/b", "revision": "0" * 40},
            "data": {"train": ({"uri": "s3://bucket/rows.jsonl"},)},
            "method": {"type": "lora"},
            "storage": {"uri": "s3://bucket/runs"},
            **blocks,
        }
    )


SPEC = make_spec()
RUN = run_id(SPEC)
MANIFESTS = render(place(SPEC, Profile()), SPEC)
TRAIN = next(name for each in MANIFESTS if (name := text(each, "metadata", "name")).endswith("-train"))
REVISION = TRAIN.removeprefix(f"{RUN}-").removesuffix("-train")


def job(component: str, *, revision: str = REVISION, jobset: bool = False, **fields: Any) -> Workload:
    """A Job of the run as the cluster tells it. Fields: suspend, end, message, deleting, queue, created."""
    end = {"type": fields.get("end"), "status": "True", "reason": "R", "message": fields.get("message", "")}
    metadata = {
        "name": f"{RUN}-{revision}-{component}",
        "uid": "u",
        "creationTimestamp": fields.get("created", "2026-01-01T00:00:00Z"),
        "labels": {
            "sftjob.dev/run-id": RUN,
            "sftjob.dev/revision": revision,
            "app.kubernetes.io/component": component,
            **({"kueue.x-k8s.io/queue-name": fields["queue"]} if "queue" in fields else {}),
        },
        **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if fields.get("deleting") else {}),
    }
    return read_workload(
        {
            "kind": "JobSet" if jobset else "Job",
            "metadata": metadata,
            "spec": {"suspend": fields.get("suspend", False)},
            "status": {"conditions": [end] if "end" in fields else []},
        }
    )


def names(manifests: Iterable[Manifest]) -> list[str]:
    return [f"{each['kind']} {component_of(each)}" for each in manifests]


def of(*workloads: Workload, durable: Durable = NOTHING, manifests: tuple[Manifest, ...] = MANIFESTS) -> Submission:
    return decide(manifests, workloads, durable)


class TestNotTrained:
    def test_a_new_run_is_applied_as_it_is_rendered(self) -> None:
        assert of() == Submission(said="", apply=MANIFESTS)

    def test_one_that_runs_is_left_alone_but_for_what_is_missing(self) -> None:
        found = of(job("train"), job("eval", suspend=True), job("gate"))

        assert found.said == f"is running already as job/{TRAIN}"
        assert found.absent_only
        assert found.remove == ()

    def test_one_that_waits_in_a_queue_runs(self) -> None:
        assert of(job("train", suspend=True, queue="q")).said == f"waits for its queue as job/{TRAIN}"

    def test_one_of_another_revision_is_left_alone_altogether(self) -> None:
        found = of(job("train", revision="0bad"))

        assert found.apply == found.remove == ()
        assert found.said == (
            f"is running already as job/{RUN}-0bad-train; this spec and profile would make {TRAIN}: "
            f"to replace it, sftjob cancel {RUN}, then submit again"
        )

    def test_a_job_set_runs_as_well(self) -> None:
        assert of(job("train", jobset=True)).said == f"is running already as jobset/{TRAIN}"

    def test_one_that_failed_is_deleted_and_applied(self) -> None:
        failed, evaluation = job("train", end="Failed", message="exit code 65"), job("eval", suspend=True)
        found = of(failed, evaluation, job("gate", end="Complete"))

        assert [each.component for each in found.remove] == ["train", "eval", "gate"]
        assert found.apply == MANIFESTS
        assert found.said == "failed (exit code 65) and continues from its last checkpoint"
        assert not found.absent_only

    def test_a_failed_revision_beside_a_running_one_changes_nothing(self) -> None:
        found = of(job("train", revision="0bad", end="Failed"), job("train"))

        assert found.said.startswith("is running already")
        assert found.remove == ()

    def test_the_newest_failure_is_told(self) -> None:
        old = job("train", revision="0bad", end="Failed", message="old")
        new = job("train", end="Failed", message="new", created="2026-02-01T00:00:00Z")

        assert of(new, old).said.startswith("failed (new)")
        assert len(of(new, old).remove) == 2

    def test_one_that_is_being_deleted_makes_room_first(self) -> None:
        found = of(job("train", deleting=True))

        assert len(found.remove) == 1
        assert found.said == "was being deleted and is started again"

    def test_success_without_results_is_trained_again(self) -> None:
        found = of(job("train", end="Complete"))

        assert found.apply == MANIFESTS
        assert "results are not in the store" in found.said

    def test_a_gate_that_has_ended_is_made_anew(self) -> None:
        dead = job("gate", end="Failed")
        found = of(job("train"), dead)

        assert found.remove == (dead,)
        assert found.absent_only
        assert of(job("train"), job("gate", end="Failed", revision="ffff")).remove == ()


class TestStoreOutOfReach:
    """The Jobs are all there is to go by."""

    HIDDEN = Durable(trained=False, evaluated=False, known=False)

    def test_a_run_that_is_evaluated_is_not_trained_again(self) -> None:
        found = of(job("train", end="Complete"), job("eval"), job("gate"), durable=self.HIDDEN)

        assert (found.remove, found.apply) == ((), ())
        assert "its evaluation runs already" in found.said

    def test_nor_is_one_that_is_done(self) -> None:
        assert of(job("train", end="Complete"), job("eval", end="Complete"), durable=self.HIDDEN).done

    def test_an_evaluation_of_another_revision_does_not_count(self) -> None:
        other = job("eval", end="Complete", revision="ffff")

        assert of(job("train", end="Complete"), other, durable=self.HIDDEN).resume

    def test_a_failed_one_is_replaced(self) -> None:
        failed = job("train", end="Failed", message="m")

        assert of(failed, durable=self.HIDDEN).remove == (failed,)


class TestTrained:
    def test_another_evaluation_that_runs_is_not_taken_for_ours(self) -> None:
        found = of(job("train", end="Complete"), job("eval", revision="ffff"), durable=TRAINED)

        assert found.apply == ()
        assert "is another evaluation of it" in found.said
        assert f"sftjob cancel {RUN}" in found.said

    def test_and_evaluated_there_is_nothing_to_do(self) -> None:
        found = of(job("train", end="Complete"), job("eval", end="Complete"), durable=EVALUATED)

        assert found == Submission(said="is trained and evaluated: there is nothing to do", done=True)

    def test_jobs_that_time_has_deleted_change_nothing(self) -> None:
        assert of(durable=EVALUATED).done

    def test_a_spec_without_evaluation_is_done(self) -> None:
        spec = make_spec(kubernetes={"evaluation": "never"})
        found = of(durable=TRAINED, manifests=render(place(spec, Profile()), spec))

        assert found.done
        assert found.said == "is trained, and its spec wants no evaluation: there is nothing to do"

    @pytest.mark.parametrize(
        "there",
        [
            (),
            (job("train", end="Complete"),),
            (job("train", end="Complete"), job("eval", suspend=True), job("gate")),
        ],
    )
    def test_only_the_evaluation_and_what_it_needs_are_applied(self, there: tuple[Workload, ...]) -> None:
        found = of(*there, durable=TRAINED)

        assert names(found.apply) == ["ConfigMap train", "ServiceAccount train", "Job eval"]
        assert found.resume
        assert found.remove == ()
        assert found.said == "is trained; its evaluation is started"

    def test_no_service_of_the_training(self) -> None:
        spec = make_spec(launch={"nodes": 2, "gpus_per_node": 8})
        manifests = render(place(spec, Profile()), spec)
        assert "Service train" in names(manifests)

        assert "Service train" not in names(of(durable=TRAINED, manifests=manifests).apply)

    @pytest.mark.parametrize("running", [job("eval"), job("eval", suspend=True, queue="q")])
    def test_an_evaluation_that_runs_is_left_alone(self, running: Workload) -> None:
        found = of(running, durable=TRAINED)

        assert found.apply == found.remove == ()
        assert found.said == f"is trained, and its evaluation runs already as job/{running.name}"

    @pytest.mark.parametrize("end", ["Failed", "Complete"])
    def test_one_that_ended_without_a_result_is_deleted_first(self, end: str) -> None:
        ended = job("eval", end=end)
        found = of(ended, job("train", end="Complete"), durable=TRAINED)

        assert found.remove == (ended,)
        assert found.resume
        assert found.said == "is trained; its evaluation is started again"
