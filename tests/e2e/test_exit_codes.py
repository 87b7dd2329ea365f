"""The table of exit codes, as the real Job and JobSet controllers play it: no container runs, kwok ends the pods."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from sftjob.contract import Component, ExitCode, JobAction, Label
from sftjob.place import place
from sftjob.render import render
from sftjob.spec import JobSpec, Profile
from tests.e2e import kwok
from tests.e2e.kubectl import Kubectl, Object, condition, ended
from tests.e2e.kwok import Simulation, apply, scratch_namespace, simulated

pytestmark = pytest.mark.e2e

OOM_KILLED: Final = 137
RETRIES: Final = 1
"""The Job controller waits 10 s before it tries again, then 20 s."""
NODES: Final = (1, 2)
FAILING: Final = [*(code for code in ExitCode if code.action is JobAction.FAIL_JOB)]
COUNTING: Final = [*(code for code in ExitCode if code and code.action is JobAction.COUNT), OOM_KILLED]
IGNORED: Final = [*(code for code in ExitCode if code.action is JobAction.IGNORE)]


@dataclass(frozen=True)
class Table:
    """A train Job (or JobSet) for each code and number of nodes, all applied at once."""

    kubectl: Kubectl
    names: dict[tuple[int, int], str]

    def end(self, code: int, nodes: int, kind: str = "job") -> Object:
        """The Job when it is terminal, either way."""
        name = self.names[code, nodes]
        what = f"the end of {kind} {name}"
        return self._until(kind, name, lambda them: bool(name in them and ended(them[name])), what)[name]

    def restarted(self, code: int, nodes: int) -> list[Object]:
        """The pods, when each of the gang has a successor; deleted ones count."""
        name, seen = self.names[code, nodes], {}

        def all_twice(pods: Any) -> bool:
            seen.update({pod["metadata"]["uid"]: pod for pod in pods.values() if pod.get("status")})
            return len(seen) >= 2 * nodes

        self._until("pods", name, all_twice, f"new pods of {name}")
        return [*seen.values()]

    def pods(self, code: int, nodes: int) -> list[Object]:
        return self.kubectl.list("pods", self._selector(self.names[code, nodes]))

    def _until(self, kind: str, name: str, done: Any, what: str) -> Any:
        return self.kubectl.until(kind, done, what=what, selector=self._selector(name), seconds=150)

    @staticmethod
    def _selector(name: str) -> str:
        run_id = name.removesuffix("-train").rpartition("-")[0]
        return f"{Label.RUN_ID.value}={run_id}"


@pytest.fixture(scope="module")
def simulation(kind_cluster: Kubectl) -> Iterator[Simulation]:
    if reason := kwok.missing():
        pytest.skip(reason)
    with simulated(kind_cluster, nodes=4) as simulation:
        yield simulation


@pytest.fixture(scope="module")
def jobs(simulation: Simulation) -> Iterator[Table]:
    with scratch_namespace(simulation.kubectl, "exit-codes") as inside:
        yield table(simulation, inside, engine="batch")


@pytest.fixture(scope="module")
def jobsets(simulation: Simulation, jobset: None) -> Iterator[Table]:
    with scratch_namespace(simulation.kubectl, "exit-codes-jobset") as inside:
        yield table(simulation, inside, engine="jobset")


def table(simulation: Simulation, kubectl: Kubectl, *, engine: str) -> Table:
    """Applies the rendered training for every code and number of nodes."""
    names, objects = {}, []
    for code in [ExitCode.DONE, *FAILING, *COUNTING, *IGNORED]:
        for nodes in NODES:
            run = rendered(f"exit-{code:d}-of-{nodes}", nodes=nodes, engine=engine)
            (train,) = (each for each in run if each["kind"] in ("Job", "JobSet"))
            names[int(code), nodes] = str(train["metadata"]["name"])
            objects += simulation.placed(run, {Component.TRAIN: {"exit-code": f"{code:d}"}})
    apply(kubectl, objects)
    return Table(kubectl, names)


def rendered(name: str, *, nodes: int, engine: str, **kubernetes: object) -> list[Any]:
    """The objects of a training with two GPUs in each pod."""
    spec = {
        "name": name,
        "model": {"uri": "s3://models/tiny"},
        "data": {"train": [{"uri": "s3://data/train.jsonl"}]},
        "method": {"type": "lora"},
        "launch": {"nodes": nodes, "gpus_per_node": 2, "gpu": kwok.GPU_PRODUCT},
        "kubernetes": {"retries": RETRIES, "evaluation": "never", **kubernetes},
    }
    profile = {"engine": engine, "storage": {"uri": "s3://runs/team"}, "images": {"train": "example.com/sftjob:1"}}
    parsed = JobSpec.model_validate_json(json.dumps(spec))
    return [*render(place(parsed, Profile.model_validate_json(json.dumps(profile))), parsed)]


@pytest.mark.parametrize("nodes", NODES)
class TestJobs:
    def test_done_is_complete(self, jobs: Table, nodes: int) -> None:
        job = jobs.end(ExitCode.DONE, nodes)

        assert ended(job)["type"] == "Complete"
        assert len(jobs.pods(ExitCode.DONE, nodes)) == nodes

    @pytest.mark.parametrize("code", FAILING)
    def test_a_permanent_error_fails_at_once(self, jobs: Table, code: ExitCode, nodes: int) -> None:
        failed = ended(jobs.end(code, nodes))

        assert (failed["type"], failed["reason"]) == ("Failed", "PodFailurePolicy")
        assert f"failed with exit code {code:d} matching FailJob rule" in failed["message"]
        assert len(jobs.pods(code, nodes)) <= nodes

    @pytest.mark.parametrize("code", COUNTING)
    def test_a_crash_is_tried_again_so_many_times(self, jobs: Table, code: int, nodes: int) -> None:
        job = jobs.end(code, nodes)

        assert (ended(job)["type"], ended(job)["reason"]) == ("Failed", "BackoffLimitExceeded")
        # Pods of a gang fail together, but are counted one by one.
        assert job["spec"]["backoffLimit"] == RETRIES * nodes
        assert nodes < job["status"]["failed"] <= (RETRIES + 1) * nodes

    @pytest.mark.parametrize("code", IGNORED)
    def test_an_interruption_is_tried_again_and_does_not_count(self, jobs: Table, code: ExitCode, nodes: int) -> None:
        pods = jobs.restarted(code, nodes)
        job = jobs.kubectl.get("job", jobs.names[code, nodes])

        assert len(pods) >= 2 * nodes
        assert not condition(job, "Failed", "FailureTarget")
        assert job["status"].get("failed", 0) == 0


@pytest.mark.parametrize("nodes", NODES)
class TestJobSets:
    def test_done_is_completed(self, jobsets: Table, nodes: int) -> None:
        assert ended(jobsets.end(ExitCode.DONE, nodes, "jobset"))["type"] == "Completed"

    @pytest.mark.parametrize("code", FAILING)
    def test_a_permanent_error_fails_at_once(self, jobsets: Table, code: ExitCode, nodes: int) -> None:
        found = jobsets.end(code, nodes, "jobset")

        assert ended(found)["type"] == "Failed"
        assert found["status"].get("restarts", 0) == 0

    @pytest.mark.parametrize("code", COUNTING)
    def test_a_crash_restarts_the_gang_so_many_times(self, jobsets: Table, code: int, nodes: int) -> None:
        found = jobsets.end(code, nodes, "jobset")

        assert ended(found)["type"] == "Failed"
        assert found["status"]["restarts"] == RETRIES

    @pytest.mark.parametrize("code", IGNORED)
    def test_an_interruption_restarts_the_gang_and_does_not_count(
        self, jobsets: Table, code: ExitCode, nodes: int
    ) -> None:
        name = jobsets.names[code, nodes]
        found = jobsets.kubectl.until(
            "jobset",
            lambda them: name in them and them[name].get("status", {}).get("restarts", 0) > RETRIES,
            what=f"more restarts of {name} than failures would have",
            seconds=150,
        )[name]

        assert not ended(found)
        assert found["status"].get("restartsCountTowardsMax", 0) == 0


class TestDisruption:
    @pytest.mark.parametrize("nodes", NODES)
    def test_an_evicted_pod_does_not_count_however_it_ends(self, simulation: Simulation, nodes: int) -> None:
        """Killed by SIGTERM, 143, which would count otherwise."""
        with scratch_namespace(simulation.kubectl, "evicted") as inside:
            run = rendered("evicted", nodes=nodes, engine="batch")
            apply(inside, simulation.placed(run, {Component.TRAIN: {"seconds": "1h"}}))
            first = inside.until("pods", lambda pods: running(pods) == nodes, what="running pods")
            for name in first:
                body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
                path = f"/api/v1/namespaces/{inside.namespace}/pods/{name}/eviction"
                inside("create", "--raw", path, "--filename=-", stdin=json.dumps(body))

            second = inside.until(
                "pods", lambda pods: running(pods) == nodes and not pods.keys() & first.keys(), what="new pods"
            )
            (job,) = inside.list("jobs")

        assert len(second) == nodes
        assert job["status"].get("failed", 0) == 0
        assert not condition(job, "Failed", "FailureTarget")

    def test_a_deadline_ends_the_job_whatever_it_does(self, simulation: Simulation) -> None:
        with scratch_namespace(simulation.kubectl, "deadline") as inside:
            run = rendered("late", nodes=1, engine="batch", active_deadline_seconds=2)
            apply(inside, simulation.placed(run, {Component.TRAIN: {"seconds": "1h"}}))
            jobs = inside.until("jobs", lambda them: any(ended(each) for each in them.values()), what="the deadline")

        (job,) = jobs.values()
        assert (ended(job)["type"], ended(job)["reason"]) == ("Failed", "DeadlineExceeded")


def running(pods: Any) -> int:
    return sum(pod.get("status", {}).get("phase") == "Running" for pod in pods.values())
