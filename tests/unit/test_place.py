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
        assert placed(launch={"gpus_per_node": gpus}).train.image == f"sftjob:{__version__}-{suffix}"

    def test_image_of_the_profile(self) -> None:
        assert (
            placed(make_profile(images={"train": "registry.example/sftjob:1"})).train.image
            == "registry.example/sftjob:1"
        )

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
        assert placed(resources={"cpu": cpu}, launch=launch).train.omp_num_threads == threads

    def test_volumes_fit_into_the_ephemeral_storage(self) -> None:
        size = placed(resources={"ephemeral_storage": "10Gi"}).train

        assert (size.workspace_size, size.tmp_size) == ("9216Mi", "512Mi")

    def test_gpu_product_joins_the_node_selector(self) -> None:
        profile = make_profile(node_selector={"pool": "ml"})

        assert placed(profile, launch={"gpu": "H100"}).train.node_selector == {
            "pool": "ml",
            "nvidia.com/gpu.product": "H100",
        }
        assert placed(profile).train.node_selector == {"pool": "ml"}

    def test_gpu_product_as_this_cluster_calls_it(self) -> None:
        gpu = {"product_label": "cloud.google.com/gke-accelerator", "products": {"H100": "nvidia-h100-80gb"}}
        profile = make_profile(gpu=gpu)

        for product, value in (("H100", "nvidia-h100-80gb"), ("L4", "L4")):
            selector = placed(profile, launch={"gpu": product}).train.node_selector
            assert selector == {"cloud.google.com/gke-accelerator": value}

    def test_the_evaluation_has_what_the_training_has_but_one_gpu(self) -> None:
        placement = placed(launch={"gpus_per_node": 8, "gpu": "H100"}, resources={"cpu": "96", "memory": "1Ti"})
        assert placement.evaluation

        assert (placement.evaluation.gpus, placement.evaluation.omp_num_threads) == (1, 96)
        assert dataclasses.replace(placement.evaluation, gpus=8, omp_num_threads=12) == placement.train

    @pytest.mark.parametrize(
        ("images", "expected"),
        [
            ({"train": "a:1"}, ("a:1", "a:1", "a:1")),
            ({"train": "a:1", "eval": "b:1"}, ("a:1", "b:1", "a:1")),
            ({"train": "a:1", "gate": "c:1"}, ("a:1", "a:1", "c:1")),
        ],
    )
    def test_images_that_are_left_out(self, images: dict[str, str], expected: tuple[str, ...]) -> None:
        placement = placed(make_profile(images=images))
        assert placement.evaluation

        assert (placement.train.image, placement.evaluation.image, placement.gate_image) == expected

    def test_who_starts_the_evaluation(self) -> None:
        found = {}
        for who in ("gate", "cli", "never"):
            placement = placed(kubernetes={"evaluation": who})
            found[who] = (placement.evaluation is not None, placement.gate_image is not None)

        assert found == {"gate": (True, True), "cli": (True, False), "never": (False, False)}

    def test_priority_of_the_profile_where_the_spec_has_none(self) -> None:
        profile = make_profile(priority_class_name="low")

        assert placed(profile).priority_class_name == "low"
        assert placed(profile, kubernetes={"priority_class_name": "high"}).priority_class_name == "high"

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
            placed().gate_image = "other"  # type: ignore[misc]


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
    "local model": (
        {"model": {"path": "base"}},
        {},
        "model.path",
        "base is on this machine, which pods cannot reach; `sftjob stage",
    ),
    "template file": (
        {"data": {"train": [{"uri": "s3://data/a.jsonl"}], "template": {"path": "chat.jinja"}}},
        {},
        "data.template.path",
        "`sftjob stage SPEC -o pinned.yaml` writes its text",
    ),
    "local rows": ({"data": {"train": [{"path": "a.jsonl"}]}}, {}, "data.train.0.path", "which pods cannot reach"),
    "local held-out rows": (
        {"data": {"train": [{"uri": "s3://data/a"}], "eval": [{"uri": "s3://data/b"}, {"path": "c.jsonl"}]}},
        {},
        "data.eval.1.path",
        "c.jsonl is on this machine",
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
    "shared memory of the evaluation": (
        {"resources": {"evaluation": {"memory": "1Gi"}}},
        {},
        "resources.evaluation.shared_memory",
        "2Gi is not below `memory`, 1Gi",
    ),
    "evaluation without memory": (
        {"resources": {"shared_memory": "64Mi", "evaluation": {"memory": "1Mi"}}},
        {},
        "resources.evaluation.memory",
        "1Mi is too little",
    ),
    "slices that should work together": (
        {"launch": {"gpus_per_node": 2}},
        {"gpu": {"resource": "nvidia.com/mig-1g.10gb"}},
        "launch.gpus_per_node",
        "2 slices of a GPU",
    ),
    "slices for the evaluation": (
        {"resources": {"evaluation": {"gpus": 2}}},
        {"gpu": {"resource": "nvidia.com/mig-1g.10gb"}},
        "resources.evaluation.gpus",
        "2 slices of a GPU",
    ),
    "a cache that two nodes cannot mount": (
        {"launch": {"nodes": 2}},
        {"model_cache": {"size": "1Gi"}},
        "profile.model_cache.access_mode",
        "the pods of 2 nodes cannot share a volume",
    ),
    "annotations that nobody would get": (
        {},
        {"service_account": {"name": "a", "annotations": {"b": "c"}}},
        "profile.service_account.annotations",
        "`a` exists already",
    ),
    "our pod label": (
        {},
        {"pod_labels": {"sftjob.dev/revision": "x"}},
        "profile.pod_labels.sftjob.dev/revision",
        "is set by sftjob",
    ),
    "pod label value": ({}, {"pod_labels": {"a": "b c"}}, "profile.pod_labels.a", "no label value"),
    "pod annotation key": ({}, {"pod_annotations": {"/a": "b"}}, "profile.pod_annotations./a", "no Kubernetes key"),
    "resource name": ({}, {"extra_resources": {"-rdma": 1}}, "profile.extra_resources.-rdma", "no Kubernetes key"),
    "the queue by hand and by profile": (
        {"kubernetes": {"labels": {"kueue.x-k8s.io/queue-name": "b"}}},
        {"queue": {"name": "a"}},
        "kubernetes.labels.kueue.x-k8s.io/queue-name",
        "is set by sftjob",
    ),
    "variable of the rendezvous": (
        {},
        {"env": {"MASTER_ADDR": "x"}},
        "profile.env.MASTER_ADDR",
        "is set by sftjob, Kubernetes or torchrun",
    ),
    "variable of the store": ({}, {"env": {"AWS_PROFILE": "x"}}, "profile.env.AWS_PROFILE", "remove it"),
    "names too long for a JobSet": (
        {"name": "a" * 30, "launch": {"nodes": 101}},
        {"engine": "jobset"},
        "name",
        "shorten it by 1",
    ),
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
        placement = placed(launch={"nodes": 4}, kubernetes={"retries": 2})

        # A JobSet starts the gang anew as a whole.
        assert (placement.backoff_limit, placement.retries) == (8, 2)

    @pytest.mark.parametrize("key", ["team", "example.com/team", "kueue.x-k8s.io/queue-name", "a.b-c_d"])
    def test_ordinary_labels_pass(self, key: str) -> None:
        assert placed(kubernetes={"labels": {key: ""}}).labels == {key: ""}
