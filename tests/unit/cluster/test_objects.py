import json

import pytest

from sftjob.cluster.objects import is_gpu, read_pod, read_workload
from tests.unit.cluster.made import job, jobset, pod


def test_an_empty_object_reads_as_nothing() -> None:
    assert read_workload({}).pods == 1
    assert read_workload({}).finish is None
    assert read_pod({}).phase == "Unknown"


def test_an_object_of_another_shape_is_no_error() -> None:
    strange = {"metadata": {"labels": 3}, "spec": {"template": []}, "status": {"conditions": [1, {"type": 4}]}}

    assert read_workload(strange).gpus_per_pod == 0
    assert not read_pod(strange | {"status": {"containerStatuses": "x", "phase": 1}}).started


def test_interim_conditions_are_no_end() -> None:
    assert read_workload(job()).finish is None


@pytest.mark.parametrize(("ended", "succeeded"), [("Complete", True), ("Failed", False)])
def test_a_jobs_end(ended: str, succeeded: bool) -> None:
    finish = read_workload(job(ended=ended, reason="r", message="m")).finish

    assert finish is not None
    assert (finish.succeeded, finish.reason, finish.message) == (succeeded, "r", "m")


@pytest.mark.parametrize(("ended", "succeeded"), [("Completed", True), ("Failed", False)])
def test_a_jobsets_end(ended: str, succeeded: bool) -> None:
    finish = read_workload(jobset(ended=ended)).finish

    assert finish is not None
    assert finish.succeeded is succeeded


def test_a_jobset_is_read_from_its_replicated_job() -> None:
    found = read_workload(jobset(restarts=2, ready=1))

    assert (found.jobset, found.pods, found.gpus_per_pod, found.restarts, found.ready) == (True, 2, 8, 2, 2)


def test_the_revision_is_in_the_name_where_no_label_says_it() -> None:
    manifest = job()
    del manifest["metadata"]["labels"]["sftjob.dev/revision"]

    assert read_workload(manifest).revision == "9f3e"


@pytest.mark.parametrize(
    ("pods", "failed", "ended", "restarts"),
    [(1, 0, "", 0), (1, 2, "", 2), (1, 1, "Failed", 0), (1, 4, "Failed", 3), (2, 2, "", 1), (2, 3, "Failed", 1)],
)
def test_restarts_of_a_job(pods: int, failed: int, ended: str, restarts: int) -> None:
    assert read_workload(job(pods=pods, failed=failed, ended=ended)).restarts == restarts


@pytest.mark.parametrize(
    ("resource", "gpu"),
    [
        ("nvidia.com/gpu", True),
        ("amd.com/gpu", True),
        ("nvidia.com/mig-1g.5gb", True),
        ("gpu.intel.com/i915", False),
        ("rdma/hca_shared", False),
        ("memory", False),
    ],
)
def test_what_counts_as_gpu(resource: str, gpu: bool) -> None:
    assert is_gpu(resource) is gpu


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (json.dumps({"exit_code": 64, "reason": "spec.json:3:\n wrong", "step": None}), "spec.json:3: wrong"),
        ("Traceback …\nValueError: no\n\n", "ValueError: no"),
        ("", ""),
        ("[1]", ""),
    ],
)
def test_what_a_container_has_left(left: str, told: str) -> None:
    end = read_pod(pod(exit_code=64, left=left)).terminated

    assert end is not None
    assert end.told == told


def test_an_init_container_that_waits_is_seen_first() -> None:
    manifest = pod(waiting="PodInitializing")
    manifest["status"]["initContainerStatuses"] = [{"state": {"waiting": {"reason": "ErrImagePull"}}}]
    waiting = read_pod(manifest).waiting

    assert waiting is not None
    assert waiting.reason == "ErrImagePull"
