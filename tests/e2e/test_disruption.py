"""A pod that is taken away in the middle of training: its successor goes on, and no retry is used up."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sftjob.contract import Component, ExitCode
from tests.e2e.conftest import STORE_NAMESPACE, MakeRun, Proved, Weights
from tests.e2e.kubectl import Kubectl, condition, ended
from tests.e2e.runs import ClusterRun

pytestmark = pytest.mark.e2e

TRAIN_ONLY = "kubernetes.evaluation=never"


def test_a_deleted_pod_saves_and_its_successor_goes_on(make_run: MakeRun, weights: Weights, proved: Proved) -> None:
    run = make_run("lora", TRAIN_ONLY)
    run.apply()
    (pod,) = run.until_running()
    run.until_committed()
    run.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")

    step = _finishes_without_a_retry(run)
    weights["lora", "deleted"] = run.weights
    proved(f"the pod was deleted while it trained: it saved step {step}, exit 75, its successor went on from there")


def test_a_drained_node_uses_up_no_retry(
    make_run: MakeRun, kind_cluster: Kubectl, weights: Weights, proved: Proved
) -> None:
    run = make_run("lora", TRAIN_ONLY)
    home, away = _nodes(kind_cluster)
    with _closed(kind_cluster, home):
        run.apply()
        (pod,) = run.until_running()
    assert pod["spec"]["nodeName"] == away
    run.until_committed()
    with _drained(kind_cluster, away):
        evicted = run.until(
            "pods", Component.TRAIN, lambda pods: any(map(_disrupted, pods.values())), what="the pod's eviction"
        )
        assert condition(evicted[pod["metadata"]["name"]], "DisruptionTarget")["reason"] == "EvictionByEvictionAPI"
        (successor,) = run.until_running()
        assert successor["spec"]["nodeName"] == home
        step = _finishes_without_a_retry(run)
    weights["lora", "drained"] = run.weights
    proved(f"its node was drained: it saved step {step}, its successor went on elsewhere, no retry was used up")


def _finishes_without_a_retry(run: ClusterRun) -> int:
    """The step that the first attempt has saved; all that follows from it is asserted."""
    train = run.until_ended()
    assert ended(train)["type"] == "Complete"
    assert not train["status"].get("failed")
    first = run.result(1)
    assert first.exit_code == ExitCode.INTERRUPTED
    assert first.step
    assert run.export
    assert run.export.attempt == 2
    return first.step


def _nodes(cluster: Kubectl) -> tuple[str, str]:
    """The node that the store's volume ties its pod to, and the other one."""
    (server,) = cluster.at(STORE_NAMESPACE).list("pods")
    home = server["spec"]["nodeName"]
    (away,) = (node["metadata"]["name"] for node in cluster.list("nodes") if node["metadata"]["name"] != home)
    return home, away


@contextmanager
def _closed(cluster: Kubectl, node: str) -> Iterator[None]:
    """No new pods on this node."""
    cluster("cordon", node)
    try:
        yield
    finally:
        cluster("uncordon", node)


@contextmanager
def _drained(cluster: Kubectl, node: str) -> Iterator[None]:
    """`kubectl drain`, which returns when the pods are gone; the node is opened again at the end."""
    command = cluster.command("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as drain:
        try:
            yield
            _, said = drain.communicate(timeout=200)
            assert drain.returncode == 0, said
        finally:
            drain.kill()
            cluster("uncordon", node)


def _disrupted(pod: dict) -> bool:
    return condition(pod, "DisruptionTarget") is not None
