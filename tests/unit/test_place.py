import dataclasses
import json
from typing import Any

import pytest

from sftjob import __version__
from sftjob.errors import SpecError
from sftjob.place import Placement, place
from sftjob.spec import JobSpec, Profile

STORED = {"uri": "s3://runs/team"}


def make_spec(**changes: Any) -> JobSpec:
    written = {
        "name": "job",
        "model": {"uri": "s3://models/tiny"},
        "data": {"train": [{"uri": "s3://data/train.jsonl"}]},
        "method": {"type": "lora"},
        "storage": STORED,
    }
    return JobSpec.model_validate_json(json.dumps(written | changes))


def make_profile(**written: Any) -> Profile:
    return Profile.model_validate_json(json.dumps(written))


def placed(profile: Profile | None = None, **changes: Any) -> Placement:
    return place(make_spec(**changes), profile or Profile())


class TestPlace:
    def test_never_depends_on_method_training_or_data(self) -> None:
        one = placed()
        other = placed(
            name="other",
            method={"type": "full"},
            training={"max_steps": 7, "max_length": 64},
            data={"train": [{"uri": "s3://data/other.jsonl"}], "template": "chatml"},
            evaluation={"batch_size": 2},
            salt="again",
        )

        assert one == other

    @pytest.mark.parametrize(("gpus", "suffix"), [(0, "cpu"), (2, "cuda")])
    def test_image_without_a_profile(self, gpus: int, suffix: str) -> None:
        assert placed(launch={"gpus_per_node": gpus}).image == f"sftjob:{__version__}-{suffix}"

    def test_image_of_the_profile(self) -> None:
        assert placed(make_profile(images={"train": "registry.example/sftjob:1"})).image == "registry.example/sftjob:1"

    @pytest.mark.parametrize(
        ("cpu", "launch", "threads"),
        [
            ("4", {"gpus_per_node": 0}, 4),
            ("4", {"gpus_per_node": 0, "processes_per_node": 2}, 2),
            ("500m", {"gpus_per_node": 0}, 1),
            ("15500m", {"gpus_per_node": 8}, 1),
            ("96", {"gpus_per_node": 8}, 12),
        ],
    )
    def test_threads_share_the_processors(self, cpu: str, launch: dict[str, int], threads: int) -> None:
        assert placed(resources={"cpu": cpu}, launch=launch).omp_num_threads == threads

    def test_volumes_fit_into_the_ephemeral_storage(self) -> None:
        placement = placed(resources={"ephemeral_storage": "10Gi"})

        assert (placement.workspace_size, placement.tmp_size) == ("9216Mi", "512Mi")

    def test_gpu_product_joins_the_node_selector(self) -> None:
        profile = make_profile(node_selector={"pool": "ml"})

        assert placed(profile, launch={"gpu": "H100"}).node_selector == {
            "pool": "ml",
            "nvidia.com/gpu.product": "H100",
        }
        assert placed(profile).node_selector == {"pool": "ml"}

    def test_tolerations_are_for_gpu_pods(self) -> None:
        assert [each.key for each in placed().tolerations] == ["nvidia.com/gpu"]
        assert placed(launch={"gpus_per_node": 0}).tolerations == ()

    def test_spec_decides_over_profile(self) -> None:
        profile = make_profile(storage={"uri": "s3://runs/all", "endpoint_url": "http://s3:1", "region": "one"})
        own = {"uri": "s3://runs/mine", "endpoint_url": "http://s3:2", "region": "two"}

        mine, theirs = placed(profile, storage=own), placed(profile, storage={})

        assert (mine.storage_uri, mine.endpoint_url, mine.region) == (None, "http://s3:2", "two")
        assert (theirs.storage_uri, theirs.endpoint_url, theirs.region) == ("s3://runs/all", "http://s3:1", "one")

    def test_pinned_inputs_are_no_local_paths(self) -> None:
        pinned = {"sha256": "0" * 64, "name": "tiny"}

        assert placed(model=pinned, data={"train": [pinned]}) == placed()

    def test_is_frozen(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            placed().image = "other"  # type: ignore[misc]


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "gpu without gpus": ({"launch": {"gpus_per_node": 0, "gpu": "H100"}}, {}, "launch.gpu", "`gpus_per_node` is 0"),
    "two gpu products": (
        {"launch": {"gpu": "H100"}},
        {"node_selector": {"nvidia.com/gpu.product": "A100"}},
        "launch.gpu",
        "H100 is not what the profile selects, A100",
    ),
    "milli memory": ({"resources": {"memory": "500m"}}, {}, "resources.memory", "500m is too little"),
    "no cpu": ({"resources": {"cpu": "0"}}, {}, "resources.cpu", "ask for 100m or more"),
    "no disk": ({"resources": {"ephemeral_storage": "1Mi"}}, {}, "resources.ephemeral_storage", "too little"),
    "no shared memory": ({"resources": {"shared_memory": "0"}}, {}, "resources.shared_memory", "too little"),
    "shared memory takes all": (
        {"resources": {"memory": "2Gi", "shared_memory": "2048Mi"}},
        {},
        "resources.shared_memory",
        "2048Mi is not below `memory`, 2Gi",
    ),
    "no storage": ({"storage": {}}, {}, "storage.uri", "neither the spec nor the profile"),
    "folder as storage": ({"storage": {"uri": "runs"}}, {}, "storage.uri", "pods need s3://bucket/prefix"),
    "loopback endpoint": (
        {"storage": STORED | {"endpoint_url": "http://127.0.0.1:9000"}},
        {},
        "storage.endpoint_url",
        "is, seen from a pod, the pod itself",
    ),
    "loopback endpoint of the profile": (
        {},
        {"storage": {"endpoint_url": "http://localhost:9000"}},
        "profile.storage.endpoint_url",
        "the pod itself",
    ),
    "local model": ({"model": {"path": "base"}}, {}, "model.path", "upload base and write `uri: s3://…`"),
    "template file": (
        {"data": {"train": [{"uri": "s3://data/a.jsonl"}], "template": {"path": "chat.jinja"}}},
        {},
        "data.template.path",
        "below `jinja: |`",
    ),
    "local rows": ({"data": {"train": [{"path": "a.jsonl"}]}}, {}, "data.train.0.path", "cannot reach this machine"),
    "local held-out rows": (
        {"data": {"train": [{"uri": "s3://data/a"}], "eval": [{"uri": "s3://data/b"}, {"path": "c.jsonl"}]}},
        {},
        "data.eval.1.path",
        "upload c.jsonl",
    ),
    "our label": (
        {"kubernetes": {"labels": {"sftjob.dev/run-id": "x"}}},
        {},
        "kubernetes.labels.sftjob.dev/run-id",
        "is set by sftjob or Kubernetes itself",
    ),
    "our annotation": (
        {"kubernetes": {"annotations": {"app.kubernetes.io/name": "x"}}},
        {},
        "kubernetes.annotations.app.kubernetes.io/name",
        "is set by sftjob",
    ),
    "the controller's label": (
        {"kubernetes": {"labels": {"batch.kubernetes.io/controller-uid": "x"}}},
        {},
        "kubernetes.labels.batch.kubernetes.io/controller-uid",
        "Kubernetes itself",
    ),
    "the controller's old label": ({"kubernetes": {"labels": {"job-name": "x"}}}, {}, "kubernetes.labels.job-name", ""),
    "label value": ({"kubernetes": {"labels": {"team": "a b"}}}, {}, "kubernetes.labels.team", "'a b' is no label"),
    "long label value": ({"kubernetes": {"labels": {"team": "a" * 64}}}, {}, "kubernetes.labels.team", "at most 63"),
    "label key": ({"kubernetes": {"labels": {"-team": "a"}}}, {}, "kubernetes.labels.-team", "is no Kubernetes key"),
    "label prefix": ({"kubernetes": {"labels": {"A_B/team": "a"}}}, {}, "kubernetes.labels.A_B/team", "no Kubernetes"),
    "annotation key": ({"kubernetes": {"annotations": {"/x": "a"}}}, {}, "kubernetes.annotations./x", "no Kubernetes"),
    "selector value": ({}, {"node_selector": {"pool": "a/b"}}, "profile.node_selector.pool", "'a/b' is no label value"),
    "toleration with a value too much": (
        {},
        {"tolerations": [{"key": "a"}, {"key": "a", "operator": "Exists", "value": "b"}]},
        "profile.tolerations.1",
        "`operator: Exists` has no `value`",
    ),
    "toleration of nothing": ({}, {"tolerations": [{"value": "b"}]}, "profile.tolerations.0", "names no `key`"),
    "role annotation": (
        {},
        {"service_account": {"annotations": {"a/b/c": "x"}}},
        "profile.service_account.annotations.a/b/c",
        "is no Kubernetes key",
    ),
}


class TestRefusals:
    @pytest.mark.parametrize(("spec", "profile", "field", "text"), REFUSED.values(), ids=REFUSED.keys())
    def test_names_field_and_repair(self, spec: dict[str, Any], profile: dict[str, Any], field: str, text: str) -> None:
        with pytest.raises(SpecError) as caught:
            placed(make_profile(**profile), **spec)

        assert [problem.field for problem in caught.value.problems] == [field]
        assert text in str(caught.value)
        assert caught.value.problems[0].hint

    def test_all_at_once(self) -> None:
        with pytest.raises(SpecError) as caught:
            placed(model={"path": "base"}, launch={"gpus_per_node": 0, "gpu": "H100"}, storage={})

        assert [problem.field for problem in caught.value.problems] == ["launch.gpu", "storage.uri", "model.path"]

    def test_every_pod_of_a_gang_that_fails_counts(self) -> None:
        assert placed(launch={"nodes": 4}, kubernetes={"retries": 2}).retries == 8

    @pytest.mark.parametrize("key", ["team", "example.com/team", "kueue.x-k8s.io/queue-name", "a.b-c_d"])
    def test_ordinary_labels_pass(self, key: str) -> None:
        assert placed(kubernetes={"labels": {key: ""}}).labels == {key: ""}
