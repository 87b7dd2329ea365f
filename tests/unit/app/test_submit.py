"""Submitting: in which order things happen, on a cluster and a store that are played by dicts and a folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sftjob.app import submit as module
from sftjob.app.stage import pin_for_cluster
from sftjob.app.subject import find_subject
from sftjob.app.submit import Submitted, submit
from sftjob.app.where import Where
from sftjob.cluster.api import Kind
from sftjob.cluster.kinds import kind_of
from sftjob.contract import keys
from sftjob.errors import Conflict, Denied, ObjectMissing, SpecError, Unavailable
from sftjob.plan import model_facts
from sftjob.records import EvaluationManifest, Export, PreparedData
from sftjob.render import Manifest
from sftjob.resolve import resolve
from sftjob.spec import load_spec
from sftjob.storage import FolderStore

SPEC = """\
name: job
model: {path: model}
data: {train: [{path: rows.jsonl}]}
method: {type: lora}
training: {max_steps: 3, max_length: 32}
launch: {gpus_per_node: 0}
storage: {uri: "s3://bucket/runs"}
"""


class FakeCluster:
    """Objects by kind and name; every call is noted."""

    namespace = "team"

    def __init__(self) -> None:
        self.objects: dict[tuple[Kind, str], Manifest] = {(Kind.NAMESPACE, "team"): {}}
        self.calls: list[str] = []
        self.refusals: dict[str, Exception] = {}

    def get(self, kind: Kind, name: str) -> Manifest:
        if (kind, name) not in self.objects:
            raise ObjectMissing(f"{kind.kind} {name} is not in namespace team")
        return self.objects[kind, name]

    def find(self, kind: Kind, **_selectors: object) -> Iterator[Manifest]:
        # As the API does: items of a list do not say what they are.
        for (each, _), manifest in self.objects.items():
            if each is kind:
                yield {key: value for key, value in manifest.items() if key != "kind"}

    def watch(self, kind: Kind, *, fields: dict[str, str], seconds: float) -> Iterator[tuple[str, Manifest]]:
        yield "DELETED", self.objects.pop((kind, fields["metadata.name"]))

    def apply(self, manifest: Manifest, *, dry_run: bool = False, force: bool = False) -> Manifest:
        kind, name = kind_of(manifest), self.name(manifest)
        self.calls.append(f"{'dry-run' if dry_run else 'apply'} {kind.kind}")
        if kind.kind in self.refusals:
            raise self.refusals[kind.kind]
        if not dry_run:
            assert not force
            self.objects[kind, name] = json.loads(json.dumps(manifest))
        return manifest

    def patch(self, kind: Kind, name: str, patch: Manifest) -> Manifest:
        self.calls.append(f"patch {kind.kind} {json.dumps(patch)}")
        return {}

    def delete(self, kind: Kind, name: str, *, uid: str = "") -> None:
        there: Any = self.get(kind, name)
        if uid and there["metadata"].get("uid", uid) != uid:
            raise Conflict("the UID in the precondition does not match")
        self.calls.append(f"delete {name.rpartition('-')[2]}")
        self.get(kind, name)["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"  # type: ignore[index, call-overload]

    @staticmethod
    def name(manifest: Manifest) -> str:
        return str(manifest["metadata"]["name"])  # type: ignore[index, call-overload]

    def job(self, component: str) -> dict[str, Any]:
        found: Any = next(
            each for (kind, name), each in self.objects.items() if kind is Kind.JOB and name.endswith(component)
        )
        return dict(found)

    def end(self, component: str, condition: str) -> None:
        self.job(component)  # there
        for (kind, name), each in self.objects.items():
            if kind is Kind.JOB and name.endswith(component):
                each["status"] = {"conditions": [{"type": condition, "status": "True", "message": "exit code 65"}]}

    def did(self, verb: str) -> list[str]:
        return [call for call in self.calls if call.startswith(verb)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    fake = FakeCluster()
    monkeypatch.setattr(module, "connect", lambda **_options: fake)
    return fake


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster) -> FolderStore:
    """At `<storage.uri>`; what is written there is noted among the cluster's calls."""

    class Noted(FolderStore):
        def put_file(self, key: str, path: Path, *, sha256: str, on_sent: Any = None) -> None:
            cluster.calls.append(f"store {path.name}")
            super().put_file(key, path, sha256=sha256, on_sent=on_sent)

    root = Noted(tmp_path / "store")
    monkeypatch.setattr(module, "open_root", lambda *_job, **_options: root)
    return root


@pytest.fixture
def spec(tmp_path: Path, model_folder: Path) -> Path:
    model_folder.rename(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 8, "hidden_size": 2,
                "intermediate_size": 4, "num_attention_heads": 1, "num_hidden_layers": 1,
                "max_position_embeddings": 64,
            }
        )
    )  # fmt: skip
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "job.yaml").write_text(SPEC)
    return tmp_path / "job.yaml"


def call(spec: Path, **options: Any) -> Submitted:
    return submit(load_spec(spec), Where(), **options)


def train(spec: Path, root: FolderStore, *, evaluate: bool = False) -> None:
    """Leaves in the store what a finished training, or an evaluation as well, leaves."""
    job = pin_for_cluster(load_spec(spec)).spec
    facts = model_facts(json.loads((spec.parent / "model" / "config.json").read_text()))
    resolved = resolve(job, facts)
    store, time = root.at(resolved.run_id), "2026-01-01T00:00:00Z"
    common: dict[str, Any] = {"run_id": resolved.run_id, "time": time}
    store.put_bytes(keys.SPEC, resolved.to_json())
    prepared = PreparedData(digest="0" * 64, attempt=1, template_sha256="0" * 64, vocab_size=8, splits={}, files=())
    store.put_bytes(keys.attempt_data(1), prepared.to_json())
    export = Export(attempt=1, step=3, method="lora", adapter=True, files=(), **common)
    store.put_bytes(keys.SUCCESS, export.to_json())
    if evaluate:
        eval_id = find_subject(job, root).eval_id
        manifest = EvaluationManifest(eval_id=eval_id, files=(), **common)
        store.put_bytes(keys.evaluation(eval_id, keys.SUCCESS), manifest.to_json())


class TestNewRun:
    def test_the_server_is_asked_first_then_inputs_are_staged_then_objects_applied(
        self, spec: Path, cluster: FakeCluster, store: FolderStore
    ) -> None:
        done = call(spec)

        verbs = [each.split()[0] for each in cluster.calls]
        assert verbs == sorted(verbs, key=["dry-run", "store", "apply"].index)
        assert cluster.did("dry-run")[-1] == "dry-run Job"
        assert [each.split()[1] for each in cluster.did("dry-run")] == [
            each.split()[1] for each in cluster.did("apply")
        ]
        assert done.said == ""
        assert done.applied[0].startswith("configmap/job-")
        assert cluster.job("eval")["spec"]["suspend"] is True

    def test_the_objects_carry_the_pinned_spec(self, spec: Path, cluster: FakeCluster, store: FolderStore) -> None:
        call(spec)

        carried = json.loads(
            next(each["data"]["spec.json"] for (kind, _), each in cluster.objects.items() if kind is Kind.CONFIG_MAP)  # type: ignore[index, call-overload, arg-type]
        )
        assert carried["model"].keys() == {"sha256", "name"}
        assert store.head(keys.input(carried["model"]["sha256"], "config.json")).size > 0

    def test_a_dry_run_changes_nothing(self, spec: Path, cluster: FakeCluster, store: FolderStore) -> None:
        done = call(spec, dry_run=True)

        assert done.applied == ()
        assert {each.split()[0] for each in cluster.calls} == {"dry-run"}

    def test_new_run_is_another_one(self, spec: Path, cluster: FakeCluster, store: FolderStore) -> None:
        assert len({call(spec).run_id, call(spec, new_run=True).run_id}) == 2

    def test_settings_are_planned_where_the_config_is_at_hand(
        self, spec: Path, cluster: FakeCluster, store: FolderStore
    ) -> None:
        told: list[str] = []
        call(spec, progress=told.append)

        assert told[0].startswith("ok       about ")

    def test_what_does_not_fit_is_refused(
        self, spec: Path, cluster: FakeCluster, store: FolderStore, tmp_path: Path
    ) -> None:
        known = json.loads((tmp_path / "model" / "config.json").read_text())
        large = {"hidden_size": 8192, "intermediate_size": 32768, "num_hidden_layers": 80, "num_attention_heads": 64}
        (tmp_path / "large.json").write_text(json.dumps({**known, **large}))
        spec.write_text(SPEC.replace("gpus_per_node: 0", "gpus_per_node: 1, gpu: NVIDIA-L4"))

        with pytest.raises(SpecError, match=r"job\.yaml:6: launch\.gpu: .* GiB are needed, L4 has"):
            call(spec, config=tmp_path / "large.json")
        assert cluster.calls == []

    def test_what_cannot_train_is_refused_with_its_line(
        self, spec: Path, cluster: FakeCluster, store: FolderStore
    ) -> None:
        spec.write_text(SPEC.replace("max_length: 32", "max_length: 9999"))

        with pytest.raises(SpecError, match=r"job\.yaml:5: training\.max_length: "):
            call(spec)
        assert cluster.calls == []


class TestRefusals:
    def test_all_reasons_of_the_server_are_told_and_nothing_is_changed(
        self, spec: Path, cluster: FakeCluster, store: FolderStore
    ) -> None:
        cluster.refusals["Job"] = SpecError("spec.template: too long", file="Job x")
        cluster.refusals["ConfigMap"] = SpecError("data: too long", file="ConfigMap x")

        with pytest.raises(SpecError) as caught:
            call(spec)

        # Of train, eval and gate the server says the same.
        assert str(caught.value) == "ConfigMap x: data: too long\nJob x: spec.template: too long"
        assert cluster.did("apply") == cluster.did("store") == []

    def test_who_may_not_make_a_role_is_told_how_to_do_without(
        self, spec: Path, cluster: FakeCluster, store: FolderStore
    ) -> None:
        cluster.refusals["Role"] = Denied("User a cannot create roles", hint="ask for it")

        with pytest.raises(Denied, match=r"; ask for it; `kubernetes: \{evaluation: cli\}` needs no Role"):
            call(spec)

    def test_a_namespace_that_is_not_there_is_told_with_the_command(
        self, spec: Path, cluster: FakeCluster, store: FolderStore
    ) -> None:
        cluster.objects.clear()

        with pytest.raises(ObjectMissing, match="kubectl create namespace team"):
            call(spec)
        assert cluster.calls == []

    def test_a_store_out_of_reach_matters_where_something_is_to_be_staged(
        self, spec: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unreachable(*_job: object, **_options: object) -> FolderStore:
            raise Unavailable("no answer")

        monkeypatch.setattr(module, "open_root", unreachable)
        with pytest.raises(Unavailable):
            call(spec)

        revision = "0" * 40
        lines = SPEC.splitlines()
        lines[1:3] = [f'model: {{hub: a/b, revision: "{revision}"}}', 'data: {train: [{uri: "s3://bucket/r.jsonl"}]}']
        spec.write_text("\n".join(lines))
        told: list[str] = []
        assert call(spec, progress=told.append).applied
        assert any(line.startswith("note     whether the run is done already") for line in told)


class TestAgain:
    def test_a_run_that_runs_gets_only_what_it_lacks(
        self, spec: Path, cluster: FakeCluster, store: FolderStore
    ) -> None:
        first = call(spec)
        gate = next(key for key in cluster.objects if key[1].endswith("gate") and key[0] is Kind.JOB)
        del cluster.objects[gate]
        cluster.calls.clear()

        done = call(spec)

        assert done.said.startswith("is running already as job/")
        assert done.applied == (f"job/{gate[1]}",)
        assert cluster.calls == ["dry-run Job", "apply Job"]
        assert call(spec).applied == ()
        assert done.run_id == first.run_id

    def test_a_failed_one_is_gone_before_it_is_applied(
        self, spec: Path, cluster: FakeCluster, store: FolderStore
    ) -> None:
        call(spec)
        cluster.end("train", "Failed")
        cluster.calls.clear()

        done = call(spec)

        assert done.said == "failed (exit code 65) and continues from its last checkpoint"
        assert cluster.did("delete") == ["delete eval", "delete train", "delete gate"]
        assert cluster.calls.index("apply Job") > cluster.calls.index("delete gate")
        assert "status" not in cluster.job("train")

    def test_a_finished_one_needs_nothing(self, spec: Path, cluster: FakeCluster, store: FolderStore) -> None:
        train(spec, store, evaluate=True)

        done = call(spec)

        assert done.done
        assert done.said == "is trained and evaluated: there is nothing to do"
        assert cluster.calls == []

    def test_another_evaluation_of_a_finished_one_is_all_that_runs(
        self, spec: Path, cluster: FakeCluster, store: FolderStore
    ) -> None:
        train(spec, store, evaluate=True)
        spec.write_text(f"{SPEC}evaluation: {{max_rows: 7}}\n")

        done = call(spec)

        assert done.said == "is trained; its evaluation is started"
        assert cluster.job("eval")["spec"]["suspend"] is False
        assert [each.split("/")[0] for each in done.applied] == ["configmap", "serviceaccount", "job"]

    def test_a_suspended_evaluation_is_resumed_where_it_is(
        self, spec: Path, cluster: FakeCluster, store: FolderStore
    ) -> None:
        call(spec)
        cluster.end("train", "Complete")
        train(spec, store)
        cluster.calls.clear()

        call(spec)

        assert cluster.did("patch") == ['patch Job {"spec": {"suspend": false}}']

    def test_under_kueue_it_is_handed_to_the_queue(
        self, spec: Path, cluster: FakeCluster, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        profile = tmp_path / "queued.yaml"
        profile.write_text("queue: {name: research}\n")
        monkeypatch.setenv("SFTJOB_PROFILE", str(profile))
        train(spec, store)

        call(spec)

        evaluation = cluster.job("eval")
        assert evaluation["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
        assert evaluation["spec"]["suspend"] is True
