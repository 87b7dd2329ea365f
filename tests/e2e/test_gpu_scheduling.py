"""Manifests that ask for GPUs, on nodes that say they have some: they are placed and started. No GPU is behind it."""

import json
from collections.abc import Iterator
from typing import Final

import pytest

from sftjob.contract import Component, ExitCode
from tests.e2e.conftest import MakeRun, Proved
from tests.e2e.kubectl import Kubectl, Objects, ended, exit_code

pytestmark = pytest.mark.e2e

PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
PRODUCT: Final = "NVIDIA-H100-80GB-HBM3"
GPUS: Final = 2
TAINT: Final = "nvidia.com/gpu"


@pytest.fixture
def gpu_node(kind_cluster: Kubectl) -> Iterator[str]:
    """A node with GPUs in its status, the label of their product, and the taint that GPU nodes often have."""
    workers = kind_cluster.list("nodes", "!node-role.kubernetes.io/control-plane")
    name = str(workers[0]["metadata"]["name"])
    path = "/status/capacity/nvidia.com~1gpu"

    def patch(**operation: str) -> None:
        kind_cluster("patch", "node", name, "--subresource=status", "--type=json", f"--patch={json.dumps([operation])}")

    patch(op="add", path=path, value=str(GPUS))
    kind_cluster("label", "node", name, f"{PRODUCT_LABEL}={PRODUCT}", "--overwrite")
    kind_cluster("taint", "node", name, f"{TAINT}=present:NoSchedule", "--overwrite")
    yield name
    kind_cluster("taint", "node", name, f"{TAINT}-")
    kind_cluster("label", "node", name, f"{PRODUCT_LABEL}-")
    patch(op="remove", path=path)


def test_a_pod_lands_where_its_gpus_are_and_says_that_they_are_missing(
    make_run: MakeRun, gpu_node: str, proved: Proved
) -> None:
    run = make_run("gpu")
    run.apply()
    train = run.until_ended()
    (pod,) = run.pods()
    assert pod["spec"]["nodeName"] == gpu_node
    assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == str(GPUS)
    assert exit_code(pod) == ExitCode.CONFIGURATION
    assert ended(train)["reason"] == "PodFailurePolicy"
    message = json.loads(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"])
    assert "GPU" in message["reason"]
    proved(f"a pod with {GPUS} GPUs was placed on the one node that has them; there it said: {message['reason']}")


def test_a_gang_that_asks_for_more_gpus_than_there_are_stays_pending(
    make_run: MakeRun, gpu_node: str, proved: Proved
) -> None:
    run = make_run("gpu", "launch.nodes=2", "launch.strategy=zero3")
    run.apply()

    def one_waits(pods: Objects) -> bool:
        placed = [pod["spec"].get("nodeName") for pod in pods.values()]
        waiting = [pod for pod in pods.values() if "Insufficient nvidia.com/gpu" in _unschedulable(pod)]
        return gpu_node in placed and len(waiting) == 1

    pods = run.until("pods", Component.TRAIN, one_waits, what="one pod in its place, and one that waits for GPUs")
    reason = next(filter(None, map(_unschedulable, pods.values())))
    proved(f"two pods with {GPUS} GPUs each, one such node: the second one waits, {reason.partition('. ')[0]}")


def _unschedulable(pod: dict) -> str:
    """The scheduler's reason; empty when the pod has a place."""
    scheduled = [each for each in pod.get("status", {}).get("conditions", []) if each["type"] == "PodScheduled"]
    return next((each.get("message", "") for each in scheduled if each["status"] == "False"), "")
