"""Two pods on two nodes train one model; when one is lost, both start again from the same commit."""

import json
from collections.abc import Iterator

import pytest

from sftjob.contract import keys
from tests.e2e.conftest import MakeRun, Proved, Weights
from tests.e2e.kubectl import Kubectl, Object, ended
from tests.e2e.runs import ClusterRun

pytestmark = pytest.mark.e2e

FABRIC = "example.com/fabric"
"""Of which each node has one, as of a network card: so that two pods need two nodes."""
STEPS = 600


@pytest.fixture
def fabric(kind_cluster: Kubectl) -> Iterator[dict[str, object]]:
    """The part of a profile that asks for one card a pod."""
    nodes = [node["metadata"]["name"] for node in kind_cluster.list("nodes")]
    path = f"/status/capacity/{FABRIC.replace('/', '~1')}"
    add, remove = {"op": "add", "path": path, "value": "1"}, {"op": "remove", "path": path}
    for node in nodes:
        kind_cluster("patch", "node", node, "--subresource=status", "--type=json", f"--patch={json.dumps([add])}")
    yield {"extra_resources": {FABRIC: 1}}
    for node in nodes:
        kind_cluster("patch", "node", node, "--subresource=status", "--type=json", f"--patch={json.dumps([remove])}")


def test_a_gang_of_a_plain_job_that_loses_a_pod_starts_again_as_a_whole(
    make_run: MakeRun, fabric: dict[str, object], weights: Weights, proved: Proved
) -> None:
    run = make_run("gang", **fabric)
    run.apply()
    step = _loses_a_pod(run, "--force", "--grace-period=0")

    train = run.until_ended()
    assert ended(train)["type"] == "Complete"
    _trained_by_two_attempts(run)
    weights["gang", "killed"] = run.weights
    proved("two pods on two nodes train by DeepSpeed ZeRO-2 over gloo")
    proved(f"plain Job: one of the two was killed after step {step}; both started again and finished")


def test_a_gang_of_a_jobset_that_loses_a_pod_starts_again_as_a_whole(
    make_run: MakeRun, jobset: None, fabric: dict[str, object], weights: Weights, proved: Proved
) -> None:
    run = make_run("gang", engine="jobset", **fabric)
    run.apply()
    step = _loses_a_pod(run)

    train = run.until_ended(kind="jobset")
    assert ended(train)["type"] == "Completed"
    assert train["status"]["restarts"] == 1
    assert not train["status"].get("restartsCountTowardsMax")
    _trained_by_two_attempts(run)
    weights["gang", "deleted under JobSet"] = run.weights
    proved(f"JobSet: one of the two was deleted after step {step}; the set restarted, which counts towards no limit")


def _loses_a_pod(run: ClusterRun, *how: str) -> int:
    """Deletes pod 1 when something was committed; returns the step."""
    pods = run.until_running(count=2)
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    step = run.until_committed()
    victim = next(pod["metadata"]["name"] for pod in pods if _index(pod) == "1")
    run.kubectl("delete", "pod", victim, "--wait=false", *how)
    return step


def _index(pod: Object) -> str:
    return str(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])


def _trained_by_two_attempts(run: ClusterRun) -> None:
    """Four pods, two at a time, and the second two have trained to the end."""
    assert run.export
    assert (run.export.step, run.export.attempt) == (STEPS, 2)
    places = [run.store.get_bytes(keys.pod(attempt, index)) for attempt in (1, 2) for index in (0, 1)]
    assert len({json.loads(place)["pod_uid"] for place in places}) == 4
