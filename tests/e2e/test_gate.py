"""The gate against the real Job controller, for every way in which training can end; kwok plays the pods.

It runs in this process, but asks the cluster as the account that the manifests give it, with the rights of its Role.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Event
from typing import Any, Final

import pytest
import yaml

from sftjob.cluster.api import connect
from sftjob.contract import Component, Env, ExitCode, JobAction, Label, keys
from sftjob.errors import Denied
from sftjob.gate import loop
from sftjob.gate.loop import Ending, Surroundings, watch
from sftjob.gate.settings import read_settings
from sftjob.place import place
from sftjob.records import Result
from sftjob.render import render
from sftjob.spec import JobSpec, Profile
from sftjob.storage import FolderStore
from tests.e2e import kwok
from tests.e2e.kubectl import Kubectl, Object, ended
from tests.e2e.kwok import Fate, Simulation, apply, scratch_namespace, simulated

pytestmark = pytest.mark.e2e

LOOK_SECONDS: Final = 0.3
LONG: Final = {"seconds": "1h"}


@dataclass
class Scene:
    """A run on simulated nodes and its gate, which runs in a thread."""

    kubectl: Kubectl
    objects: list[Object]
    """All but the gate's Job."""
    store: FolderStore
    lines: list[str] = field(default_factory=list)
    heard: Condition = field(default_factory=Condition)
    gate: "Future[Ending] | None" = None

    def ending(self, seconds: float = 90) -> Ending:
        assert self.gate is not None
        return self.gate.result(timeout=seconds)

    def name(self, component: Component) -> str:
        """Of the component's Job or JobSet."""
        return next(
            str(each["metadata"]["name"])
            for each in self.objects
            if each["kind"] in ("Job", "JobSet")
            and each["metadata"]["labels"][Label.COMPONENT.value] == component.value
        )

    @property
    def engine(self) -> str:
        return "jobset" if any(each["kind"] == "JobSet" for each in self.objects) else "job"

    def apply(self) -> None:
        apply(self.kubectl, self.objects)

    def success(self) -> None:
        self.store.put_bytes(keys.SUCCESS, b"{}")

    def until(self, component: Component, done: Callable[[Object], Any], what: str) -> Object:
        """The component's Job when it is so."""
        name = self.name(component)
        kind = self.engine if component is Component.TRAIN else "job"
        found = self.kubectl.until(kind, lambda them: name in them and bool(done(them[name])), what=what, seconds=90)
        return found[name]

    def hear(self, line: str) -> None:
        with self.heard:
            self.lines.append(line)
            self.heard.notify_all()

    def until_said(self, words: str, *, count: int = 1) -> None:
        with self.heard:
            said = self.heard.wait_for(lambda: sum(words in line for line in self.lines) >= count, timeout=60)
        assert said, f"the gate does not say {words!r}: {self.lines}"

    @property
    def evaluated(self) -> bool:
        """Whether the eval Job has ever had a pod; the Job itself may be gone."""
        name = self.name(Component.EVAL)
        fields = f"--field-selector=involvedObject.kind=Job,involvedObject.name={name},reason=SuccessfulCreate"
        return bool(json.loads(self.kubectl("get", "events", fields, "-o", "json"))["items"])

    def job(self, component: Component) -> Object:
        return self.kubectl.get(self.engine if component is Component.TRAIN else "job", self.name(component))

    def gone(self, component: Component) -> bool:
        """Also when it is only on its way."""
        found = {each["metadata"]["name"]: each for each in self.kubectl.list("jobs")}
        job = found.get(self.name(component))
        return job is None or "deletionTimestamp" in job["metadata"]

    @property
    def gate_has_ended(self) -> bool:
        assert self.gate is not None
        return self.gate.done()

    def failure(self, owner: str) -> None:
        result = Result(attempt=1, owner=owner, exit_code=80, reason="the loss is nan", time="2026-01-01T00:00:00Z")
        self.store.put_bytes(keys.FAILED, result.to_json())


Start = Callable[..., Scene]


@pytest.fixture(scope="module")
def simulation(kind_cluster: Kubectl) -> Iterator[Simulation]:
    if reason := kwok.missing():
        pytest.skip(reason)
    with simulated(kind_cluster, nodes=3) as simulation:
        yield simulation


@pytest.fixture(scope="module")
def start(simulation: Simulation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Applies a run and starts its gate: `start("bad-spec", {"exit-code": "64"})`."""
    stopped = Event()

    def sleep(seconds: float) -> None:
        if stopped.wait(seconds):
            raise KeyboardInterrupt

    def begin(name: str, train: Fate, *, evaluation: str = "2s", without: str = "", **options: Any) -> Scene:
        objects = rendered(name, **options)
        gate = next(each for each in objects if each["metadata"]["name"].endswith("-gate") and each["kind"] == "Job")
        fates = {Component.TRAIN: train, Component.EVAL: {"seconds": evaluation}}
        placed = simulation.placed((each for each in objects if each is not gate), fates)
        folder = tmp_path_factory.mktemp(name)
        scene = Scene(inside, [each for each in placed if each["kind"] != without], FolderStore(folder / "run"))
        scene.apply()
        account = gate["spec"]["template"]["spec"]["serviceAccountName"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KUBECONFIG", str(kubeconfig(inside, account, folder / "kubeconfig")))
            cluster = connect(namespace=inside.namespace)
        told = read_settings(environment(gate, inside.namespace), look_seconds=LOOK_SECONDS)
        around = Surroundings(sleep=sleep, say=scene.hear)
        scene.gate = threads.submit(watch, told, cluster, scene.store, around)
        return scene

    with scratch_namespace(simulation.kubectl, "gate") as inside, ThreadPoolExecutor(40) as threads:
        yield begin
        stopped.set()


def environment(gate: Object, namespace: str) -> dict[str, str]:
    """What the gate's container is told; the namespace comes from the kubelet."""
    (container,) = gate["spec"]["template"]["spec"]["containers"]
    return {Env.NAMESPACE: namespace} | {each["name"]: each["value"] for each in container["env"] if "value" in each}


def kubeconfig(kubectl: Kubectl, account: str, path: Path) -> Path:
    """How the gate's pod reaches the cluster: with its service account's token and no other right."""
    token = kubectl("create", "token", account, "--duration=1h").strip()
    found = yaml.safe_load(kubectl.kubeconfig.read_text())
    context = {"cluster": found["clusters"][0]["name"], "user": "gate"}
    found |= {"users": [{"name": "gate", "user": {"token": token}}]}
    found |= {"contexts": [{"name": "gate", "context": context}], "current-context": "gate"}
    path.write_text(yaml.safe_dump(found))
    return path


def rendered(
    name: str, *, nodes: int = 1, engine: str = "batch", retries: int = 0, deadline: int | None = None
) -> list[Any]:
    """All objects of a run, the gate's Job included."""
    kubernetes = {"retries": retries, **({"active_deadline_seconds": deadline} if deadline else {})}
    spec = {
        "name": name,
        "model": {"uri": "s3://models/tiny"},
        "data": {"train": [{"uri": "s3://data/train.jsonl"}]},
        "method": {"type": "lora"},
        "launch": {"nodes": nodes},
        "kubernetes": kubernetes,
    }
    profile = {"engine": engine, "storage": {"uri": "s3://runs/team"}}
    parsed = JobSpec.model_validate_json(json.dumps(spec))
    return [*render(place(parsed, Profile.model_validate_json(json.dumps(profile))), parsed)]


FAILURES: Final[dict[str, tuple[Fate, dict[str, Any], str]]] = {
    **{
        f"exit-{code:d}": ({"exit-code": f"{code:d}"}, {}, f"failed with exit code {code:d}")
        for code in ExitCode
        if code.action is JobAction.FAIL_JOB
    },
    "crash": ({"exit-code": "70"}, {}, "BackoffLimitExceeded"),
    "crash-of-a-gang": ({"exit-code": "70"}, {"nodes": 2}, "BackoffLimitExceeded"),
    "killed-for-memory": ({"exit-code": "137"}, {}, "BackoffLimitExceeded"),
    "deadline": (LONG, {"deadline": 2, "retries": 1}, "DeadlineExceeded"),
}
"""Name: how the pods end, what the spec says beside, and what the Job then says."""


@pytest.fixture(scope="module")
def failing(start: Start) -> dict[str, Scene]:
    """All at once: most of the time is the Job controller's."""
    return {name: start(name, fate, **options) for name, (fate, options, _) in FAILURES.items()}


class TestTrainingThatFails:
    @pytest.mark.parametrize("name", FAILURES)
    def test_takes_the_eval_job_along(self, failing: dict[str, Scene], name: str) -> None:
        scene = failing[name]
        ending = scene.ending()

        assert ending.code is ExitCode.DONE
        assert ending.reason.startswith("training has failed (")
        assert FAILURES[name][2] in ending.reason
        assert scene.gone(Component.EVAL)
        assert not scene.evaluated


class TestTrainingThatIsDone:
    def test_lets_the_evaluation_start_and_not_before(self, start: Start) -> None:
        scene = start("done", {"seconds": "2s"})
        scene.until(Component.TRAIN, ended, "the training's end")
        scene.until_said("_SUCCESS is awaited")
        assert not scene.evaluated
        scene.success()

        assert scene.ending() == Ending(ExitCode.DONE, "the evaluation is complete")
        assert ended(scene.job(Component.EVAL))["type"] == "Complete"
        assert scene.evaluated

    def test_is_evaluated_though_its_job_is_gone(self, start: Start) -> None:
        scene = start("swept", LONG)
        scene.until_said("1 of 1 pods run")
        scene.success()
        scene.kubectl("delete", "job", scene.name(Component.TRAIN), "--wait=false")

        assert scene.ending().reason == "the evaluation is complete"

    def test_a_second_apply_while_the_evaluation_runs_is_made_good(self, start: Start) -> None:
        scene = start("again", {}, evaluation="8s")
        scene.success()
        for count in (1, 2):
            scene.until_said("it is resumed", count=count)
            scene.apply()

        assert scene.ending() == Ending(ExitCode.DONE, "the evaluation is complete")
        assert sum("it is resumed" in line for line in scene.lines) == 3

    def test_the_failure_of_an_earlier_job_counts_for_nothing(self, start: Start) -> None:
        scene = start("stale", {"seconds": "3s"})
        scene.failure(owner="00000000-0000-0000-0000-000000000000")
        scene.until(Component.TRAIN, ended, "the training's end")
        scene.success()

        assert scene.ending().reason == "the evaluation is complete"

    def test_a_failure_of_this_job_counts_before_the_job_says_so(self, start: Start) -> None:
        scene = start("told", LONG)
        scene.failure(owner=scene.job(Component.TRAIN)["metadata"]["uid"])

        assert "exit code 80: the loss is nan" in scene.ending().reason
        assert not scene.evaluated

    def test_complete_without_success_is_an_error(self, start: Start) -> None:
        scene = start("elsewhere", {})

        ending = scene.ending()
        assert ending.code is ExitCode.INPUT
        assert "_SUCCESS is not in the store" in ending.reason
        assert scene.gone(Component.EVAL)


class TestTrainingThatDoesNotEnd:
    def test_without_an_image_it_is_awaited_until_somebody_deletes_it(self, start: Start) -> None:
        scene = start("no-image", {"waiting": "ImagePullBackOff"})
        scene.until_said("0 of 1 pods run; `kubectl describe pods` says why")
        assert not scene.gate_has_ended
        scene.kubectl("delete", "job", scene.name(Component.TRAIN), "--wait=false")

        assert scene.ending() == Ending(
            ExitCode.DONE, "training was deleted before it was done: the eval Job is deleted"
        )
        assert not scene.evaluated

    def test_a_deleted_eval_job_ends_the_gate(self, start: Start) -> None:
        scene = start("unwanted", LONG)
        scene.until_said("1 of 1 pods run")
        scene.kubectl("delete", "job", scene.name(Component.EVAL), "--wait=false")

        assert scene.ending() == Ending(ExitCode.DONE, "the eval Job is gone: nothing is left to start")

    def test_an_interruption_is_no_end(self, start: Start) -> None:
        scene = start("interrupted", {"exit-code": "75"})
        selector = f"batch.kubernetes.io/job-name={scene.name(Component.TRAIN)}"
        scene.kubectl.until("pods", lambda pods: len(pods) > 1, what="a successor", selector=selector)
        assert not scene.gate_has_ended
        scene.success()

        assert scene.ending().reason == "the evaluation is complete"

    def test_a_suspended_one_is_awaited(self, start: Start) -> None:
        scene = start("suspended", LONG)
        scene.until_said("1 of 1 pods run")
        scene.kubectl(
            "patch", "job", scene.name(Component.TRAIN), "--type=merge", '--patch={"spec": {"suspend": true}}'
        )
        scene.until_said("training: suspended")
        assert not scene.gate_has_ended
        scene.success()

        assert scene.ending().reason == "the evaluation is complete"

    def test_without_its_role_it_says_what_it_may_not(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loop, "PATIENCE_SECONDS", 1.0)
        scene = start("no-rights", LONG, without="RoleBinding")

        with pytest.raises(Denied, match=f"has to allow get of job/{scene.name(Component.TRAIN)}, and get, patch and"):
            scene.ending()


@pytest.mark.usefixtures("jobset")
class TestJobSets:
    def test_one_that_fails_takes_the_eval_job_along(self, start: Start) -> None:
        scene = start("set-failed", {"exit-code": "65"}, engine="jobset", nodes=2)

        assert scene.ending().reason.startswith("training has failed (")
        assert scene.gone(Component.EVAL)
        assert not scene.evaluated

    def test_one_whose_deadline_has_passed_is_not_started_anew(self, start: Start) -> None:
        scene = start("set-late", LONG, engine="jobset", deadline=2, retries=1)

        assert scene.ending().reason.startswith("training has failed (")
        assert scene.job(Component.TRAIN)["status"].get("restarts", 0) == 0
        assert scene.gone(Component.EVAL)

    def test_one_that_is_done_is_evaluated(self, start: Start) -> None:
        scene = start("set-done", {"seconds": "10s"}, engine="jobset", nodes=2)
        scene.until_said("training: 2 of 2 pods run")
        scene.until(Component.TRAIN, ended, "the training's end")
        assert not scene.evaluated
        scene.success()

        assert scene.ending().reason == "the evaluation is complete"
