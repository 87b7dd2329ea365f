"""The client among many runs. kwok plays nodes and pods; SFTJOB_E2E_RUNS=1000 plays the numbers of docs/scale.md.

Asserted are requests and memory; seconds depend on the machine and are only printed, beside kubectl's.
"""

import json
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml

from sftjob.cluster.api import Kind
from sftjob.contract import Component, Label
from sftjob.place import place
from sftjob.render import render
from sftjob.spec import JobSpec, Profile
from tests.e2e import kwok, measured
from tests.e2e.kubectl import Kubectl, Object
from tests.e2e.kwok import Simulation, client, scratch_namespace, simulated, until_so_many
from tests.e2e.measured import Cost
from tests.s3_server import S3Server

pytestmark = pytest.mark.e2e

RUNS: Final = int(os.environ.get("SFTJOB_E2E_RUNS", "100"))
GPUS: Final = 4
PAGE: Final = 500
CLIENT_MB: Final = 110
"""Of a process that has imported the client, and of one page of Jobs, with room to spare."""
MB_A_RUN: Final = 0.02
"""Of what is kept of a run that is listed."""
WAITED: Final = 3
"""Runs beside the many, which end while somebody waits for them."""
Told = Callable[[str, Cost], None]


@dataclass(frozen=True)
class Crowd:
    """Many runs in one namespace; each has its GPUs, and the cluster is full."""

    kubectl: Kubectl
    api_port: int
    run_ids: list[str]
    ending: dict[str, list[Object]]
    """More runs by their ids, not applied yet, which train for 20 seconds."""
    environment: dict[str, str]
    endpoint_url: str

    def start(self, *arguments: str) -> measured.Running:
        return measured.sftjob(
            self.kubectl.kubeconfig,
            self.api_port,
            *arguments,
            f"--namespace={self.kubectl.namespace}",
            environment=self.environment,
        )

    def start_kubectl(self, *arguments: str) -> measured.Running:
        return measured.kubectl(self.kubectl.kubeconfig, f"--namespace={self.kubectl.namespace}", *arguments)


@pytest.fixture(scope="module")
def simulation(kind_cluster: Kubectl) -> Iterator[Simulation]:
    if reason := kwok.missing():
        pytest.skip(reason)
    with simulated(kind_cluster, nodes=math.ceil((RUNS + WAITED) * GPUS / 8)) as simulation:
        yield simulation


@pytest.fixture(scope="module")
def crowd(simulation: Simulation, s3_servers: Any) -> Iterator[Crowd]:
    server = s3_servers("moto").with_new_bucket()
    api = yaml.safe_load(simulation.kubectl.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    with scratch_namespace(simulation.kubectl, "scale") as inside:
        written = [[*rendered(index, server)] for index in range(RUNS + WAITED)]
        run_ids = [str(objects[0]["metadata"]["labels"][Label.RUN_ID.value]) for objects in written]
        many = [simulation.placed(each, {Component.TRAIN: {"seconds": "5h"}}) for each in written[:RUNS]]
        create(inside, many)
        until_so_many(client(inside), Kind.POD, {Label.COMPONENT.value: Component.TRAIN.value}, running, RUNS)
        few = [simulation.placed(each, {Component.TRAIN: {"seconds": "20s"}}) for each in written[RUNS:]]
        port = urlsplit(api).port
        assert port
        ending = dict(zip(run_ids[RUNS:], few, strict=True))
        yield Crowd(inside, port, run_ids[:RUNS], ending, dict(server.environment), server.endpoint_url)


def rendered(index: int, server: S3Server) -> list[Any]:
    """ConfigMap, service account, train Job and eval Job: a gate would be one more pod."""
    spec = {
        "name": f"run-{index}",
        "model": {"uri": "s3://models/tiny"},
        "data": {"train": [{"uri": "s3://data/train.jsonl"}]},
        "method": {"type": "lora"},
        "launch": {"gpus_per_node": GPUS, "gpu": kwok.GPU_PRODUCT},
        "kubernetes": {"evaluation": "cli"},
    }
    # The address as pods would know it; this machine is told another one.
    profile = {"storage": {"uri": f"s3://{server.bucket}/runs", "endpoint_url": "http://s3.example:7070"}}
    parsed = JobSpec.model_validate_json(json.dumps(spec))
    return [*render(place(parsed, Profile.model_validate_json(json.dumps(profile))), parsed)]


def create(kubectl: Kubectl, runs: list[list[Object]]) -> None:
    cluster = client(kubectl)
    with ThreadPoolExecutor(4) as threads:
        for _ in threads.map(cluster.apply, (each for objects in runs for each in objects)):
            pass


def running(pod: Object) -> bool:
    return bool(pod.get("status", {}).get("phase") == "Running")


def others(run_id: str, cost: Cost) -> list[str]:
    """Requests that read more than one run; whether there are JobSets at all is asked with `limit=1`."""
    return [each for each in cost.requests if run_id not in each and not each.endswith("limit=1")]


@pytest.fixture
def told(proved: Callable[[str], None]) -> Callable[[str, Cost], None]:
    """Puts figures into the table at the end."""
    return lambda what, cost: proved(f"{what} among {RUNS} runs: {cost}")


def test_list_takes_one_request_a_page_and_little_memory(crowd: Crowd, told: Told) -> None:
    cost = crowd.start("list").cost()
    told("sftjob list", cost)
    told("kubectl get jobs", crowd.start_kubectl("get", "jobs", "--selector=app.kubernetes.io/name=sftjob").cost())
    told("kubectl get jobs -o json", crowd.start_kubectl("get", "jobs", "--output=json").cost())

    assert cost.code == 0, cost.output
    assert all(run_id in cost.output for run_id in crowd.run_ids)
    # Train and eval Jobs, and one question for JobSets.
    assert len(cost.requests) <= math.ceil(2 * RUNS / PAGE) + 1, cost.requests
    assert all(f"limit={PAGE}" in each for each in cost.requests)
    assert cost.peak_mb <= CLIENT_MB + MB_A_RUN * RUNS


def test_status_reads_one_run_alone(crowd: Crowd, told: Told) -> None:
    run_id = crowd.run_ids[RUNS // 2]
    cost = crowd.start("status", run_id, f"--endpoint-url={crowd.endpoint_url}").cost()
    told("sftjob status RUN", cost)
    selector = f"--selector={Label.RUN_ID.value}={run_id}"
    told("kubectl get jobs,pods,configmaps", crowd.start_kubectl("get", "jobs,pods,configmaps", selector).cost())

    assert cost.code == 0, cost.output
    assert run_id in cost.output
    assert not others(run_id, cost)
    assert len(cost.requests) <= 8
    assert cost.peak_mb <= CLIENT_MB + 40  # boto3


def test_wait_watches_and_asks_seldom(crowd: Crowd, told: Told) -> None:
    """Some training, then the evaluation, which this client starts itself."""
    create(crowd.kubectl, [*crowd.ending.values()])
    waiting = [crowd.start("wait", each, f"--endpoint-url={crowd.endpoint_url}") for each in crowd.ending]
    train = f"--selector={Label.RUN_ID.value}={next(iter(crowd.ending))},{Label.COMPONENT.value}=train"
    theirs = crowd.start_kubectl("wait", "job", "--for=condition=complete", train, "--timeout=120s")
    costs = [each.cost(seconds=180) for each in waiting]
    told("sftjob wait RUN", max(costs, key=lambda cost: len(cost.requests)))
    told("kubectl wait job (training alone)", theirs.cost())

    for run_id, cost in zip(crowd.ending, costs, strict=True):
        assert cost.code == 0, cost.output
        assert not others(run_id, cost)
        # Each change asks why; the watches themselves are renewed once a minute.
        assert len(cost.requests) <= 12 + cost.seconds / 5, cost.requests
        assert cost.peak_mb <= CLIENT_MB + 40
