"""`sftjob submit` and `fetch` on a real cluster, as a person uses them: with a spec, a profile and the commands."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from sftjob.contract import Label, keys
from sftjob.storage import ObjectStore, open_store
from tests.e2e.conftest import BUCKET, STORE_NAMESPACE, Images, Proved
from tests.e2e.kubectl import Kubectl, Object, Objects, ended
from tests.s3_server import S3Server
from tests.train.test_supervisor_e2e import write_model, write_rows

pytestmark = pytest.mark.e2e

SPEC = {
    "name": "submitted",
    "model": {"path": "model"},
    "data": {"train": [{"path": "train.jsonl"}], "template": "chatml"},
    "method": {"type": "lora", "r": 4},
    "training": {"max_steps": 4, "per_device_train_batch_size": 2, "max_length": 64, "save_steps": 2},
    "launch": {"gpus_per_node": 0},
    "resources": {"cpu": "250m", "memory": "3Gi", "ephemeral_storage": "2Gi", "shared_memory": "128Mi"},
    "kubernetes": {"termination_grace_period_seconds": 90},
    "evaluation": {"generation": {"prompts": ["hello"], "held_out_rows": 0, "max_new_tokens": 4}},
}


@dataclass(frozen=True)
class Person:
    """A folder with a spec and a profile, and the command."""

    folder: Path
    kubectl: Kubectl
    store: ObjectStore
    """At `<storage.uri>`."""

    def sftjob(self, *arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
        program = shutil.which("sftjob", path=str(Path(sys.executable).parent))
        assert program is not None
        environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig or self.kubectl.kubeconfig),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }
        return subprocess.run(
            [program, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def submit(self, *arguments: str) -> str:
        done = self.sftjob("submit", "job.yaml", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("\n")[0]

    def write(self, **blocks: object) -> None:
        (self.folder / "job.yaml").write_text(yaml.safe_dump({**SPEC, **blocks}, sort_keys=False))

    def write_profile(self, **more: object) -> None:
        """The default one, where every command looks."""
        path = self.folder / "config" / "sftjob" / "profile.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        known = yaml.safe_load(path.read_text()) if path.exists() else {}
        path.write_text(yaml.safe_dump({**known, **more}))

    @property
    def jobs(self) -> dict[str, Object]:
        """By component."""
        found = self.kubectl.list("jobs", f"{Label.NAME.value}=sftjob")
        return {each["metadata"]["labels"][Label.COMPONENT.value]: each for each in found}

    def until_ended(self, component: str, *, seconds: float = 400) -> str:
        """`Complete` or `Failed`."""

        def all_ended(jobs: Objects) -> bool:
            return bool(jobs) and all(ended(each) for each in jobs.values())

        selector = f"{Label.NAME.value}=sftjob,{Label.COMPONENT.value}={component}"
        what = f"the Job {component} at its end"
        (job,) = self.kubectl.until("job", all_ended, what=what, selector=selector, seconds=seconds).values()
        return str((ended(job) or {})["type"])


@pytest.fixture
def person(namespace: Kubectl, images: Images, s3: S3Server, root: ObjectStore, tmp_path: Path) -> Person:
    """With a model and rows beside the spec, and runs in a folder of their own in the bucket."""
    write_model(tmp_path / "model")
    write_rows(tmp_path / "train.jsonl")
    prefix = f"submitted-{secrets.token_hex(4)}"
    person = Person(tmp_path, namespace, open_store(f"s3://{BUCKET}/{prefix}"))
    person.write()
    person.write_profile(
        images={"train": images.train, "gate": images.gate},
        namespace=namespace.namespace,
        storage={
            "uri": f"s3://{BUCKET}/{prefix}",
            "endpoint_url": f"http://s3.{STORE_NAMESPACE}.svc:7070",
            "external_endpoint_url": s3.endpoint_url,
            "region": "us-east-1",
            "credentials_secret": {"name": "store", "key": "credentials"},
        },
    )
    return person


def test_from_local_files_to_a_report_and_never_twice(person: Person, proved: Proved) -> None:
    assert person.sftjob("render", "job.yaml").returncode == 64, "local paths need staging"
    first = person.submit()
    run_id = first.split()[1]
    assert person.jobs.keys() == {"train", "eval", "gate"}

    assert "is running already as job/" in person.submit()

    assert person.until_ended("train") == "Complete"
    assert person.until_ended("eval") == "Complete"
    assert "is trained and evaluated: there is nothing to do" in person.submit()

    fetched = person.sftjob("fetch", run_id, "-o", "result")
    assert fetched.returncode == 0, fetched.stderr
    names = {path.relative_to(person.folder / "result").as_posix() for path in (person.folder / "result").rglob("*.*")}
    assert {"adapter/adapter_model.safetensors", "report/report.md", "report/report.html"} <= names
    proved("submit: local model and data to a fetched report; submitted again, nothing is trained twice")

    # Jobs are gone when their time is over; what the store has counts.
    person.kubectl("delete", "jobs", "--all")
    person.write(evaluation={"generation": {"prompts": ["another"], "held_out_rows": 0, "max_new_tokens": 4}})
    assert "is trained; its evaluation is started" in person.submit()
    assert person.jobs.keys() == {"eval"}
    assert person.until_ended("eval") == "Complete"
    assert "there is nothing to do" in person.submit()
    attempts = {info.key.split("/")[1] for info in person.store.at(run_id).list("attempts/")}
    assert attempts == {"1"}
    proved("submit: another evaluation of a finished run starts that alone")


def test_a_failed_run_starts_again_when_its_input_is_there(person: Person, s3: S3Server, proved: Proved) -> None:
    uri = f"{person.store.uri}/rows.jsonl"
    person.write(data={"train": [{"uri": uri}], "template": "chatml"}, kubernetes={"evaluation": "never"})
    person.submit()
    assert person.until_ended("train") == "Failed"
    before = person.jobs["train"]["metadata"]
    key = uri.removeprefix(f"s3://{BUCKET}/")
    s3.client().upload_file(str(person.folder / "train.jsonl"), BUCKET, key)

    said = person.submit()

    after = person.jobs["train"]["metadata"]
    assert "failed (" in said
    assert (after["name"], after["uid"] != before["uid"]) == (before["name"], True)
    assert person.until_ended("train") == "Complete"
    proved("submit: a failed Job is deleted in the foreground, applied again, and trains")


def test_refusals_are_one_line_with_the_next_step(person: Person, tmp_path: Path, proved: Proved) -> None:
    def refusal(*arguments: str, kubeconfig: Path | None = None) -> tuple[int, str]:
        done = person.sftjob("submit", "job.yaml", *arguments, kubeconfig=kubeconfig)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in done.stderr
        assert errors, done.stderr
        return done.returncode, errors[0]

    code, line = refusal("-n", "no-such-namespace")
    assert (code, "kubectl create namespace no-such-namespace" in line) == (66, True)

    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-config-maps"}}
    person.kubectl("apply", "-f", "-", stdin=json.dumps({**quota, "spec": {"hard": {"count/configmaps": "0"}}}))
    code, line = refusal()
    assert (code, "exceeded quota: no-config-maps" in line) == (77, True)
    assert person.jobs == {}
    assert next(person.store.list(), None) is None, "nothing was staged"
    person.kubectl("delete", "quota", "no-config-maps")

    code, line = refusal(kubeconfig=_limited(person, tmp_path))
    assert code == 77
    assert "`kubernetes: {evaluation: cli}` needs no Role" in line
    assert person.jobs == {}

    code, line = refusal(kubeconfig=tmp_path / "no-kubeconfig")
    assert (code, "no cluster is configured" in line) == (69, True)
    proved("submit: no namespace, no quota, no right and no cluster are a line each, and nothing is changed")


def test_models_are_fetched_once_into_a_cache(person: Person, proved: Proved) -> None:
    person.write_profile(model_cache={"size": "1Gi"})
    run_id = person.submit().split()[1]
    assert person.until_ended("train") == "Complete"
    assert person.until_ended("eval") == "Complete"

    logs = {
        component: person.kubectl("logs", f"--selector={Label.COMPONENT.value}={component}", "--tail=-1")
        for component in ("train", "eval")
    }

    assert "/model.safetensors (" in logs["train"]
    assert "using model from the cache (/cache/models/" in logs["eval"]
    assert "/model.safetensors (" not in logs["eval"]
    assert person.store.at(run_id).head(keys.SUCCESS).size > 0
    proved("model cache: the evaluation takes the base model from the volume that the training filled")


def _limited(person: Person, folder: Path) -> Path:
    """The kubeconfig of somebody who may handle Jobs, but no Roles."""
    kubectl = person.kubectl
    kubectl("create", "serviceaccount", "person")
    resources = "jobs.batch,configmaps,serviceaccounts,services,pods"
    kubectl("create", "role", "person", "--verb=*", f"--resource={resources}")
    kubectl("create", "rolebinding", "person", "--role=person", f"--serviceaccount={kubectl.namespace}:person")
    token = kubectl("create", "token", "person").strip()
    config = yaml.safe_load(kubectl("config", "view", "--raw", "--minify"))
    config["users"] = [{"name": "person", "user": {"token": token}}]
    config["contexts"][0]["context"]["user"] = "person"
    path = folder / "limited.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path
