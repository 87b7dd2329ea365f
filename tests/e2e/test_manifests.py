"""Every golden manifest against the API server: its fields, and Pod Security `restricted` for every pod template."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import ROOT, Proved
from tests.e2e.kubectl import Kubectl, KubectlFailed, Object

pytestmark = pytest.mark.e2e

GOLDEN = sorted((ROOT / "tests" / "golden" / "manifests").glob("*.yaml"))


@pytest.mark.parametrize("way", ["client-side", "server-side"])
@pytest.mark.parametrize("file", GOLDEN, ids=lambda path: path.stem)
def test_the_server_takes_it_with_strict_validation(file: Path, way: str, namespace: Kubectl, jobset: None) -> None:
    namespace(
        "apply",
        f"--server-side={'true' if way == 'server-side' else 'false'}",
        "--dry-run=server",
        "--validate=strict",
        "--filename=-",
        stdin=_text(file, namespace),
    )


@pytest.mark.parametrize("file", GOLDEN, ids=lambda path: path.stem)
def test_its_pods_pass_pod_security_restricted(file: Path, namespace: Kubectl, proved: Proved) -> None:
    objects = [*yaml.safe_load_all(_text(file, namespace))]
    pods = list(_bare_pods(objects, namespace))
    assert pods
    with _what_they_name(pods, namespace):
        for pod in pods:
            namespace("create", "--dry-run=server", "--validate=strict", "--filename=-", stdin=json.dumps(pod))
    proved(f"{file.stem}: the server takes {len(objects)} objects, and {len(pods)} bare pods under `restricted`")


def test_the_namespace_refuses_what_is_not_restricted(namespace: Kubectl) -> None:
    pod = next(_bare_pods([*yaml.safe_load_all(_text(GOLDEN[0], namespace))], namespace))
    del pod["spec"]["containers"][0]["securityContext"]["capabilities"]
    refused = pytest.raises(KubectlFailed, match='violates PodSecurity "restricted')
    with _what_they_name([pod], namespace), refused:
        namespace("create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))


def _text(file: Path, namespace: Kubectl) -> str:
    """The golden's own text for this namespace: written again it might be quoted otherwise."""
    return re.sub(r"(?m)^( +)namespace: [-a-z0-9]+$", rf"\1namespace: {namespace.namespace}", file.read_text())


def _bare_pods(objects: list[Object], namespace: Kubectl) -> Iterator[Object]:
    """The templates as pods: Pod Security refuses pods, and of a Job's pods nobody hears when it does."""
    for each in objects:
        for template in _templates(each):
            metadata = {**template["metadata"], "name": each["metadata"]["name"], "namespace": namespace.namespace}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


@contextmanager
def _what_they_name(pods: list[Object], namespace: Kubectl) -> Iterator[None]:
    """Objects without which the server takes no bare pod: service accounts, priority and runtime classes."""
    accounts = {pod["spec"]["serviceAccountName"] for pod in pods}
    priorities = {pod["spec"]["priorityClassName"] for pod in pods if "priorityClassName" in pod["spec"]}
    runtimes = {pod["spec"]["runtimeClassName"] for pod in pods if "runtimeClassName" in pod["spec"]}
    objects = [
        *({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}} for name in accounts),
        *(
            {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 1}
            for name in priorities
        ),
        *(
            {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": "runc"}
            for name in runtimes
        ),
    ]
    text = yaml.safe_dump_all(objects)
    namespace("apply", "--filename=-", stdin=text)
    try:
        yield
    finally:
        namespace("delete", "--filename=-", "--ignore-not-found", stdin=text)


def _templates(each: Object) -> list[Object]:
    if each["kind"] == "Job":
        return [each["spec"]["template"]]
    if each["kind"] == "JobSet":
        return [job["template"]["spec"]["template"] for job in each["spec"]["replicatedJobs"]]
    return []
