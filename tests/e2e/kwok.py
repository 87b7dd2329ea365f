"""Nodes without machines: kwok plays their kubelet, while API server, scheduler and Job controller are the real ones.

https://kwok.sigs.k8s.io. Pods that are to run there carry a selector and a toleration; everything else stays away.
"""

import copy
import json
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sftjob.cluster.api import Cluster, Kind, connect
from sftjob.contract import Component, Label
from tests.e2e.kubectl import Kubectl, Object, condition

_STAGES: Final = Path(__file__).with_name("kwok.yaml")
_MARK: Final = "simulated.sftjob.dev/by"
"""Label, annotation and taint of our nodes; its value tells one session's from another's."""
_PREFIX: Final = "simulate.sftjob.dev"
_TOLERATION: Final = {"key": _MARK, "operator": "Exists", "effect": "NoSchedule"}
GPU_PRODUCT: Final = "NVIDIA-H100-80GB-HBM3"
_NODE_SIZE: Final = {"cpu": "96", "memory": "2Ti", "ephemeral-storage": "8Ti", "pods": "110", "nvidia.com/gpu": "8"}

Fate = Mapping[str, str]
"""How a component's pods live: `seconds`, `exit-code`, `waiting`; see kwok.yaml."""


def missing() -> str:
    """Why nothing can be simulated here; empty when it can."""
    return "" if shutil.which("kwok") else "kwok is not on PATH"


@dataclass(frozen=True)
class Simulation:
    """Simulated nodes of a cluster."""

    kubectl: Kubectl
    mark: str

    def placed(self, objects: Iterable[Mapping[str, Any]], fates: Mapping[Component, Fate]) -> list[Object]:
        """The same objects, whose pods land on simulated nodes and live as their component's fate has it."""
        return [self._placed(each, fates) for each in objects]

    def _placed(self, original: Mapping[str, Any], fates: Mapping[Component, Fate]) -> Object:
        found: Object = copy.deepcopy(dict(original))
        if template := _pod_template(found):
            component = Component(found["metadata"]["labels"][Label.COMPONENT.value])
            fate = {f"{_PREFIX}/{name}": value for name, value in fates.get(component, {}).items()}
            template["metadata"]["annotations"] = template["metadata"].get("annotations", {}) | fate
            template["spec"]["nodeSelector"] = template["spec"].get("nodeSelector", {}) | {_MARK: self.mark}
            template["spec"]["tolerations"] = [*template["spec"].get("tolerations", []), _TOLERATION]
        return found


@contextmanager
def simulated(kubectl: Kubectl, *, nodes: int) -> Iterator[Simulation]:
    """Makes nodes of eight GPUs each and removes them, and all that runs on them, at the end."""
    mark = f"kwok-{secrets.token_hex(3)}"
    command = ["kwok", f"--kubeconfig={kubectl.kubeconfig}", f"--config={_STAGES}", "--node-lease-duration-seconds=40"]
    command.append(f"--manage-nodes-with-annotation-selector={_MARK}={mark}")
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            written = yaml.dump_all((_node(mark, index) for index in range(nodes)), Dumper=yaml.CSafeDumper)
            kubectl("create", "--filename=-", stdin=written, seconds=300)
            until_so_many(client(kubectl), Kind.NODE, {_MARK: mark}, lambda node: condition(node, "Ready"), nodes)
            yield Simulation(kubectl, mark)
        finally:
            # Before kwok stops: pods on nodes that nobody answers for stay for minutes.
            kubectl("delete", "--raw", f"/api/v1/nodes?labelSelector={_MARK}%3D{mark}", seconds=300)
            process.terminate()


@contextmanager
def scratch_namespace(kubectl: Kubectl, name: str) -> Iterator[Kubectl]:
    """A namespace that is deleted at the end, and is not waited for."""
    inside = kubectl.at(f"{name}-{secrets.token_hex(2)}")
    inside("create", "namespace", inside.namespace)
    try:
        yield inside
    finally:
        # Of thousands of objects that takes a while.
        inside("delete", "namespace", inside.namespace, "--wait=false")


def apply(kubectl: Kubectl, objects: Iterable[Object], *, seconds: float = 180) -> str:
    """`kubectl apply`; returns what it says of each object."""
    return kubectl("apply", "--filename=-", stdin="\n---\n".join(map(json.dumps, objects)), seconds=seconds)


def client(kubectl: Kubectl) -> Cluster:
    """Our own client for the same namespace: it is not held to 50 requests a second, and its watches survive crowds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubectl.kubeconfig))
        return connect(namespace=kubectl.namespace)


def until_so_many(
    cluster: Cluster, kind: Kind, labels: Mapping[str, str], done: Callable[[Object], object], count: int
) -> None:
    """Watches until so many objects are as `done` says."""
    found: set[object] = set()
    for _, each in cluster.watch(kind, labels=labels, seconds=600):
        (found.add if done(each) else found.discard)(str(each["metadata"]["name"]))
        if len(found) >= count:
            return
    raise AssertionError(f"after 600 s {len(found)} of {count} {kind.plural} are as they should be")


def _node(mark: str, index: int) -> Object:
    """No label names its operating system, so that the node agents of kind's DaemonSets stay away."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": f"{mark}-{index}",
            "labels": {_MARK: mark, "nvidia.com/gpu.product": GPU_PRODUCT, "kubernetes.io/hostname": f"{mark}-{index}"},
            "annotations": {_MARK: mark},
        },
        "spec": {"taints": [{"key": _MARK, "value": mark, "effect": "NoSchedule"}]},
        "status": {"capacity": _NODE_SIZE, "allocatable": _NODE_SIZE},
    }


def _pod_template(found: Object) -> Object | None:
    if found["kind"] == "Job":
        template: Object = found["spec"]["template"]
        return template
    if found["kind"] == "JobSet":
        group: Object = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
        return group
    return None
