"""The chart on a real cluster, with the real helm: install, test, upgrade while it trains, roll back, uninstall."""

import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from sftjob.contract import Component, ExitCode, Label
from sftjob.storage import ObjectStore, newest_attempt
from tests.chart.compare import CHART, NEEDS_HELM, values
from tests.e2e.conftest import STORE_NAMESPACE, Images, Proved, Weights
from tests.e2e.kubectl import Kubectl, Object, ended, exit_code
from tests.e2e.runs import ClusterRun

pytestmark = [pytest.mark.e2e, NEEDS_HELM]

KINDS = "jobs,configmaps,serviceaccounts,roles,rolebindings"
SPEC = Path(__file__).parent / "specs" / "lora.yaml"


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release, and the namespace that it is in."""

    kubectl: Kubectl
    root: ObjectStore
    spec: dict[str, Any]
    profile: dict[str, Any]

    def __call__(self, *arguments: str, stdin: str = "", seconds: float = 180) -> str:
        where = [f"--kubeconfig={self.kubectl.kubeconfig}", f"--namespace={self.kubectl.namespace}"]
        done = subprocess.run(
            ["helm", *where, *arguments], input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def upgrade(self, *, chart: Path = CHART, keep: bool = False, **platform: Any) -> ClusterRun:
        """`helm upgrade --install` with these changes to the profile; the run as it now is."""
        file = values(self.spec, self.profile | platform, keepOnUpgrade=keep)
        self("upgrade", "--install", "run", str(chart), "--values=-", stdin=file)
        return self.run

    @property
    def run(self) -> ClusterRun:
        text = self("get", "manifest", "run")
        labels = next(yaml.safe_load_all(text))["metadata"]["labels"]
        return ClusterRun(text=text, kubectl=self.kubectl, store=self.root.at(labels[Label.RUN_ID.value]))

    def left(self) -> set[str]:
        """Kind and name of all objects of the run in the namespace."""
        found = self.kubectl.list(KINDS, f"{Label.NAME.value}=sftjob")
        return {f"{each['kind']}/{each['metadata']['name']}" for each in found}


@pytest.fixture
def release(namespace: Kubectl, images: Images, root: ObjectStore) -> Release:
    profile = {
        "images": {"train": images.train, "eval": images.train, "gate": images.gate},
        "storage": {
            "uri": root.uri,
            "endpoint_url": f"http://s3.{STORE_NAMESPACE}.svc:7070",
            "region": "us-east-1",
            "credentials_secret": {"name": "store", "key": "credentials"},
        },
    }
    spec = yaml.safe_load(SPEC.read_text()) | {"salt": secrets.token_hex(4)}
    # PyYAML takes `1e-3` for text, which Helm does not.
    spec["training"]["learning_rate"] = float(spec["training"]["learning_rate"])
    return Release(kubectl=namespace, root=root, spec=spec, profile=profile)


def test_a_run_survives_an_upgrade_and_a_rollback(
    release: Release, images: Images, weights: Weights, proved: Proved
) -> None:
    run = release.upgrade()
    told = release("test", "run", "--logs", seconds=320)
    assert f"the spec is valid: run {run.run_id}" in told
    assert "of eight who created one object at once, one has won" in told
    proved("`helm test`: a pod like those of the run can keep it in the store")

    saved = run.until_committed()
    newer = release.upgrade(images=release.profile["images"] | {"train": _under_another_name(images.train)})
    assert newer.run_id == run.run_id
    assert newer.name(Component.TRAIN) != run.name(Component.TRAIN)
    _wait_as_the_notes_say(release)
    assert _type(newer.job()) == "Complete"
    assert run.result(1).exit_code == ExitCode.INTERRUPTED
    assert newer.export
    assert newer.export.attempt == 2
    weights["lora", "upgraded"] = newer.weights
    proved(f"`helm upgrade` to another image after step {saved}: the old pod saved, the new Job went on from there")

    assert _type(newer.until_ended(Component.EVAL)) == "Complete"
    release("rollback", "run", "1")
    assert release.run.name(Component.TRAIN) == run.name(Component.TRAIN)
    assert _type(run.until_ended()) == "Complete"
    assert newest_attempt(run.store) == 2
    proved("`helm rollback` brings the old Job back, which finds the run done and trains nothing")

    release("uninstall", "run")
    assert not release.left()


def test_what_the_chart_cannot_know_the_container_says(release: Release, proved: Proved) -> None:
    both = release.spec["training"] | {"num_train_epochs": 1}
    run = replace(release, spec=release.spec | {"training": both}).upgrade()
    _wait_as_the_notes_say(release)

    train = run.job()
    (pod,) = run.pods()
    assert _type(train) == "Failed"
    assert exit_code(pod) == ExitCode.SPEC
    assert "exclude each other" in pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"]
    proved(
        "a rule that only the models know: the pod says it and ends with 64; `kubectl wait` of the notes does not hang"
    )


def test_what_is_unchanged_stays_and_what_is_kept_stays(release: Release, tmp_path: Path, proved: Proved) -> None:
    # No node has that much: the Jobs are there, their pods wait.
    waiting = replace(release, spec=release.spec | {"resources": {"memory": "900Ti"}})
    first = waiting.upgrade(keep=True)
    before = first.job()
    assert _same(waiting.upgrade(keep=True).job(), before)
    assert _same(waiting.upgrade(keep=True, chart=_newer(tmp_path)).job(), before)
    proved("`helm upgrade` with the same values, or a newer chart, leaves the Job as it is")

    second = replace(waiting, spec=waiting.spec | {"resources": {"memory": "901Ti"}}).upgrade(keep=True)
    objects = waiting.left()
    assert {f"Job/{run.name(Component.TRAIN)}" for run in (first, second)} <= objects
    waiting("uninstall", "run")
    assert waiting.left() == objects
    proved("with keepOnUpgrade neither an upgrade nor `helm uninstall` takes a run away")


def test_uninstalling_takes_everything_away(release: Release) -> None:
    replace(release, spec=release.spec | {"resources": {"memory": "900Ti"}}).upgrade()
    assert release.left()

    release("uninstall", "run")
    assert not release.left()


def test_the_notes_name_what_is_there(release: Release) -> None:
    waiting = replace(release, spec=release.spec | {"resources": {"memory": "900Ti"}})
    run = waiting.upgrade()
    notes = waiting("get", "notes", "run")

    for component in Component:
        assert f"job/{run.name(component)}" in notes
    assert f"-n {release.kubectl.namespace} wait job/{run.name(Component.TRAIN)}" in notes
    assert f"sftjob.dev/run-id={run.run_id}" in notes


def _wait_as_the_notes_say(release: Release) -> None:
    """Runs the command of NOTES.txt that waits for the training, as a person would paste it."""
    lines = map(str.strip, release("get", "notes", "run").splitlines())
    (command,) = (line for line in lines if line.startswith("kubectl") and " wait " in line)
    with_cluster = os.environ | {"KUBECONFIG": str(release.kubectl.kubeconfig)}
    done = subprocess.run(
        ["bash", "-c", command], env=with_cluster, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr


def _under_another_name(image: str) -> str:
    """The same digest with a tag beside it, which nodes ignore: another image to everyone but them."""
    name, at, digest = image.partition("@")
    return f"{name}:newer{at}{digest}" if at else f"{image}-newer"


def _newer(folder: Path) -> Path:
    """The chart in another version."""
    chart = folder / "sftjob"
    shutil.copytree(CHART, chart)
    file = chart / "Chart.yaml"
    file.write_text(file.read_text().replace("\nversion: ", "\nversion: 9"))
    return chart


def _same(job: Object, before: Object) -> bool:
    """The very Job, and nobody has changed its spec."""
    return all(job["metadata"][key] == before["metadata"][key] for key in ("uid", "generation"))


def _type(job: Object) -> str:
    condition = ended(job)
    assert condition
    return str(condition["type"])
