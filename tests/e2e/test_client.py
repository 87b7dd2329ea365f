"""`sftjob status | logs | wait | cancel | list` against a real cluster: small scripts as pods, and one real run."""

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sftjob.app.cancel import cancel
from sftjob.app.list_runs import list_runs
from sftjob.app.logs import follow_logs, show_logs
from sftjob.app.run_target import Target, find_target
from sftjob.app.status import read_status, status_json, why_not_started
from sftjob.app.wait import TimedOut, wait
from sftjob.app.where import Where
from sftjob.cluster.phase import Phase, state
from sftjob.cluster.run_watch import watch_run
from sftjob.contract import Component, ExitCode, Label
from sftjob.storage import list_commits
from tests.e2e.conftest import Images, MakeRun, Proved
from tests.e2e.kubectl import Kubectl, Object
from tests.s3_server import S3Server

pytestmark = pytest.mark.e2e

REVISION: Final = "9f3e"
RESTARTS: Final = "jobset.sigs.k8s.io/restart-attempt"
TALK: Final = """\
import os, time
for line in range({lines}):
    print("line", line, "of", os.environ["JOB_COMPLETION_INDEX"])
    time.sleep(0.5)
"""
RESTRICTED: Final = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture(autouse=True)
def environment(kind_cluster: Kubectl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a person has it who has just the kubeconfig."""
    monkeypatch.setenv("KUBECONFIG", str(kind_cluster.kubeconfig))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def script(namespace: Kubectl, images: Images) -> Callable[..., str]:
    """Applies a Job that runs a line of Python as a run's training; returns its run id."""

    def apply(
        run_id: str, code: str, *, pods: int = 1, container: Object | None = None, jobset: bool = False, **spec: Any
    ) -> str:
        labels = {
            Label.NAME.value: "sftjob",
            Label.COMPONENT.value: Component.TRAIN.value,
            Label.RUN_ID.value: run_id,
            Label.REVISION.value: REVISION,
        }
        trainer = {
            "name": "trainer",
            "image": images.train,
            "command": ["python", "-c", code],
            "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}],
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
            "securityContext": RESTRICTED,
            "terminationMessagePolicy": "FallbackToLogsOnError",
            **(container or {}),
        }
        permanent = {"containerName": "trainer", "operator": "In", "values": [64, 65]}
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": f"{run_id}-{REVISION}-train", "labels": labels},
            "spec": {
                "completionMode": "Indexed",
                "completions": pods,
                "parallelism": pods,
                "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": permanent}]},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "restartPolicy": "Never",
                        "automountServiceAccountToken": False,
                        "terminationGracePeriodSeconds": 30,
                        "containers": [trainer],
                    },
                },
                **spec,
            },
        }
        namespace("apply", "--filename=-", stdin=yaml.safe_dump(_in_jobset(job) if jobset else job))
        return run_id

    return apply


@pytest.fixture
def find(namespace: Kubectl) -> Callable[..., Target]:
    """A run of the namespace, as the command line finds it."""

    def found(reference: str, **more: Any) -> Target:
        return find_target(reference, Where(namespace=namespace.namespace, **more))

    return found


class Told(list[str]):
    """Lines as they are said; `seen` waits for one that contains a text."""

    def __init__(self) -> None:
        super().__init__()
        self._change = threading.Condition()

    def __call__(self, line: str) -> None:
        print(line, file=sys.stderr)
        with self._change:
            self.append(line)
            self._change.notify_all()

    def seen(self, text: str, seconds: float = 180) -> None:
        with self._change:
            assert self._change.wait_for(lambda: any(text in line for line in self), seconds), f"no {text!r} in {self}"


def in_thread(do: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    return thread


def test_logs_follow_every_rank_across_a_restart(
    script: Callable[..., str], find: Callable[..., Target], namespace: Kubectl, proved: Proved
) -> None:
    run_id = script("talk-00000001", TALK.format(lines=20), pods=2)
    told = Told()
    thread = in_thread(lambda: follow_logs(find("talk"), told, told))
    told.seen("[1] line 3 of 1")
    (victim,) = namespace.list("pods", f"{Label.RUN_ID.value}={run_id},batch.kubernetes.io/job-completion-index=1")
    namespace("delete", "pod", victim["metadata"]["name"], "--wait=false", "--grace-period=1")
    assert wait(find(run_id), Told(), timeout=300) is ExitCode.DONE
    thread.join(60)

    assert not thread.is_alive(), "it ends with the run"
    assert [line for line in told if line.startswith("[0] ")] == [f"[0] line {number} of 0" for number in range(20)]
    successor = [line for line in told if line.startswith("[1 ")]
    assert [line.partition("] ")[2] for line in successor] == [f"line {number} of 1" for number in range(20)]
    again = Told()
    show_logs(find(run_id), again, again)
    assert [line.partition("] ")[2] for line in again if line[1] == "1"] == [f"line {n} of 1" for n in range(20)]
    proved("logs -f: both ranks, each line once, on into the pod that replaced a deleted one, and an end")


def test_a_jobset_is_followed_through_its_restart(
    script: Callable[..., str], find: Callable[..., Target], jobset: None, proved: Proved
) -> None:
    crash = 'raise SystemExit(os.environ["RESTARTS"] == "0" and os.environ["JOB_COMPLETION_INDEX"] == "1")'
    code = TALK.format(lines=6) + crash
    label = {"fieldRef": {"fieldPath": f"metadata.labels['{RESTARTS}']"}}
    container = {"env": [{"name": "PYTHONUNBUFFERED", "value": "1"}, {"name": "RESTARTS", "valueFrom": label}]}
    run_id = script("set-00000001", code, pods=2, jobset=True, container=container, backoffLimit=0)
    told = Told()
    thread = in_thread(lambda: follow_logs(find("set"), told, told))
    assert wait(find("set"), Told(), timeout=300) is ExitCode.DONE
    thread.join(60)

    assert not thread.is_alive()
    for index in (0, 1):
        again = [line.partition("] ")[2] for line in told if line.startswith(f"[{index} ")]
        assert again == [f"line {number} of {index}" for number in range(6)], "the second pod, each line once"
    (listed,) = list_runs(find("set").cluster)
    assert (listed.run_id, listed.phase, listed.nodes, listed.restarts) == (run_id, Phase.DONE, 2, 1)
    proved("JobSet: logs -f follows both ranks into the set's second attempt; wait and list see its end")


def test_wait_ends_however_the_job_ends(
    script: Callable[..., str], find: Callable[..., Target], namespace: Kubectl, proved: Proved
) -> None:
    told = json.dumps({"exit_code": 65, "reason": "row 7: no messages"})
    leave = f'open("/dev/termination-log", "w").write({told!r}); raise SystemExit(65)'
    failed, deleted, slow = Told(), Told(), Told()
    script("wrong-00000001", leave)
    script("gone-00000001", "import time; time.sleep(600)")
    assert wait(find("wrong"), failed, timeout=120) is ExitCode.DATA
    assert failed[-1] == "phase    failed (65): row 7: no messages"

    with pytest.raises(TimedOut):
        wait(find("gone"), slow, timeout=1)
    codes: list[ExitCode] = []
    thread = in_thread(lambda: codes.append(wait(find("gone"), deleted)))
    deleted.seen("phase    training")
    namespace("delete", "job", f"gone-00000001-{REVISION}-train", "--wait=false")
    thread.join(120)
    assert codes == [ExitCode.CRASH]
    proved("wait: a failed Job's own exit code and words; a deleted Job and a time limit end it, too")


QUOTA: Final = """\
apiVersion: v1
kind: ResourceQuota
metadata: {name: small}
spec: {hard: {pods: "0"}}
"""
TROUBLES: Final[dict[str, tuple[Object, str]]] = {
    "gpu": ({"resources": {"limits": {"nvidia.com/gpu": "64"}}}, "without 64 nvidia.com/gpu free"),
    "image": ({"image": "localhost:5001/absent@sha256:" + "0" * 64}, "cannot be pulled"),
    "name": ({"image": "Not/A name"}, "is no name of an image"),
    "secret": (
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "k"}}}]},
        "needs Secret absent, which is not in namespace",
    ),
    "key": (
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "store", "key": "absent"}}}]},
        "needs the key absent of Secret store",
    ),
    "root": ({"securityContext": {}}, "violates PodSecurity"),
}


def test_why_pending_in_plain_words(
    script: Callable[..., str], find: Callable[..., Target], namespace: Kubectl, proved: Proved
) -> None:
    for name, (container, _) in TROUBLES.items():
        script(f"{name}-00000001", "pass", container=container)
    for name, (_, words) in TROUBLES.items():
        assert words in _reason(find(f"{name}-00000001"), words)
    namespace("apply", "--filename=-", stdin=QUOTA)
    script("quota-00000001", "pass")
    assert "exceeded quota: small" in _reason(find("quota"), "exceeded quota")
    proved(f"status says why it is pending: {', '.join([*TROUBLES, 'quota'])}")


def test_list_shows_what_is_there(
    script: Callable[..., str], find: Callable[..., Target], namespace: Kubectl, proved: Proved
) -> None:
    script("ends-00000001", "pass")
    script("waits-00000001", "pass", suspend=True)
    wait(find("ends"), Told(), timeout=120)
    listed = {each.run_id: each.phase for each in list_runs(find("ends").cluster)}

    assert listed == {"ends-00000001": Phase.DONE, "waits-00000001": Phase.SUSPENDED}
    everywhere = list_runs(find("ends").cluster, all_namespaces=True)
    assert {"ends-00000001", "waits-00000001"} <= {each.run_id for each in everywhere}
    assert {each.namespace for each in everywhere} >= {namespace.namespace}


def test_a_real_run_is_cancelled_continued_and_evaluated_by_the_client(
    make_run: MakeRun, find: Callable[..., Target], s3: S3Server, proved: Proved
) -> None:
    run = make_run("lora", "training.max_steps=1500", "training.save_steps=50", "kubernetes.evaluation=cli")
    run.apply()
    committed = run.until_committed()
    target = find(run.run_id, endpoint_url=s3.endpoint_url)
    shown = status_json(read_status(target, warn=pytest.fail))
    assert (shown["phase"], shown["progress"]["steps"]) == ("training", 1500)
    assert shown["progress"]["committed"] >= committed
    assert shown["progress"]["loss"] > 0

    told = Told()
    cancel(target, told)
    saved = max(list_commits(run.store))
    assert told[-1].startswith(f"saved    step {saved}, ")
    assert saved > committed
    assert not run.kubectl.list("jobs", f"{Label.RUN_ID.value}={run.run_id}")

    run.apply()
    lines = Told()
    assert wait(find(run.run_id, endpoint_url=s3.endpoint_url), lines, timeout=500) is ExitCode.DONE
    assert "started  the evaluation" in lines
    assert lines[-1] == "phase    done"
    after = status_json(read_status(target, warn=pytest.fail))
    assert (after["phase"], after["progress"]["trained"], after["progress"]["evaluated"]) == ("done", True, True)
    assert after["restarts"] == 1
    proved(f"cancel saved step {saved}; applied again it went on, and wait started the evaluation and saw its end")


def _reason(target: Target, words: str) -> str:
    """What is said of why nothing runs, when it contains the words; else what was said last."""
    said = ""
    for number, run in enumerate(watch_run(target.cluster, target.run_id, every=2)):
        said = str(why_not_started(target, run, state(run)))
        if words in said or number > 60:
            return said
    return said


def _in_jobset(job: Object) -> Object:
    """The same Job as the only one of a JobSet that may start again once."""
    labels = job["metadata"]["labels"]
    replicated = {"name": "w", "template": {"metadata": {"labels": labels}, "spec": job["spec"]}}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": job["metadata"],
        "spec": {"failurePolicy": {"maxRestarts": 1}, "replicatedJobs": [replicated]},
    }
