import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
import rfc8785

from sftjob.place import Placement, place
from sftjob.render import manifests_yaml, render
from sftjob.spec import JobSpec, Profile, canonical_spec, run_id

MakeSpec = Callable[..., JobSpec]


def names(placement: Placement, spec: JobSpec) -> list[str]:
    objects: Any = render(placement, spec)
    return [each["metadata"]["name"] for each in objects]


class TestRender:
    def test_objects_in_the_order_of_need(self, make_spec: MakeSpec) -> None:
        spec = make_spec()

        kinds = [each["kind"] for each in render(place(spec, Profile()), spec)]

        # The gate comes last: it takes a training that is not there for deleted, after a while.
        assert kinds == ["ConfigMap", *["ServiceAccount"] * 2, "Role", "RoleBinding", "Job", "Job", "Job"]

    def test_everything_that_a_profile_can_ask_for(self, make_spec: MakeSpec) -> None:
        spec = make_spec(launch={"nodes": 2})
        profile = {"network_policy": {}, "model_cache": {"size": "1Gi", "access_mode": "ReadWriteMany"}}

        kinds = [each["kind"] for each in render(place(spec, Profile.model_validate_json(json.dumps(profile))), spec)]

        assert sorted({*kinds}) == [
            *("ConfigMap", "Job", "NetworkPolicy", "PersistentVolumeClaim"),
            *("Role", "RoleBinding", "Service", "ServiceAccount"),
        ]

    @pytest.mark.parametrize(("evaluation", "jobs"), [("gate", 3), ("cli", 2), ("never", 1)])
    def test_who_starts_the_evaluation(self, make_spec: MakeSpec, evaluation: str, jobs: int) -> None:
        spec = make_spec(kubernetes={"evaluation": evaluation})

        kinds = [each["kind"] for each in render(place(spec, Profile()), spec)]

        assert kinds.count("Job") == jobs
        assert ("Role" in kinds) is (evaluation == "gate")

    def test_accounts_that_exist_are_not_rendered(self, make_spec: MakeSpec) -> None:
        spec, profile = make_spec(), Profile.model_validate_json('{"service_account": {"name": "trainers"}}')

        assert "ServiceAccount" not in [each["kind"] for each in render(place(spec, profile), spec)]

    def test_config_map_carries_the_authored_spec(self, make_spec: MakeSpec) -> None:
        spec = make_spec(training={"learning_rate": 2e-4})

        config_map: Any = render(place(spec, Profile()), spec)[0]

        assert config_map["data"] == {"spec.json": canonical_spec(spec).decode()}
        assert config_map["immutable"] is True

    def test_the_revision_is_a_hash_over_the_objects_as_rfc_8785(self, make_spec: MakeSpec) -> None:
        spec = make_spec(launch={"nodes": 2}, kubernetes={"annotations": {"note": "ä\u2028\x7f<&>\t\U0001f600"}})
        objects: Any = render(place(spec, Profile(namespace="team")), spec)
        revision = objects[0]["metadata"]["labels"]["sftjob.dev/revision"].rpartition("-")[2]

        text = json.dumps(objects).replace(f"-{revision}", "-0000")
        unnamed = json.loads(text.replace('"namespace": "team", ', "").replace(', "namespace": "team"', ""))

        listed = {"apiVersion": "v1", "kind": "List", "items": unnamed}
        assert hashlib.sha256(rfc8785.dumps(listed)).hexdigest()[:4] == revision

    def test_same_bytes_again(self, make_spec: MakeSpec) -> None:
        spec = make_spec()
        placement = place(spec, Profile())
        before = copy.deepcopy(placement)

        first = manifests_yaml(render(placement, spec))

        assert manifests_yaml(render(place(make_spec(), Profile()), make_spec())) == first
        assert placement == before

    def test_order_of_labels_says_nothing(self, make_spec: MakeSpec) -> None:
        one, other = ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
        specs = [make_spec(kubernetes={"labels": labels, "annotations": labels}) for labels in (one, other)]

        first, second = [manifests_yaml(render(place(spec, Profile()), spec)) for spec in specs]

        assert first == second

    def test_namespace_is_no_part_of_names(self, make_spec: MakeSpec) -> None:
        spec = make_spec()
        here, there = place(spec, Profile(namespace="here")), place(spec, Profile(namespace="there"))

        assert names(here, spec) == names(there, spec)
        assert {each["metadata"]["namespace"] for each in render(here, spec)} == {"here"}  # type: ignore[index,call-overload]
        assert "namespace" not in render(place(spec, Profile()), spec)[0]["metadata"]  # type: ignore[operator]

    @pytest.mark.parametrize(
        "change",
        [
            {"gate_image": "other:1"},
            {"backoff_limit": 9},
            {"labels": {"team": "b"}},
            {"cpu_limit": True},
            {"host_users": False},
            {"ttl_seconds_after_finished": 5},
            {"env": {"NCCL_DEBUG": "INFO"}},
            {"tolerations": ()},
            {"region": "x"},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_what_pods_see_is_another_name(self, make_spec: MakeSpec, change: dict[str, Any]) -> None:
        spec = make_spec()
        placement = place(spec, Profile())

        other = names(dataclasses.replace(placement, **change), spec)

        assert set(other).isdisjoint(names(placement, spec))
        assert all(name.startswith(run_id(spec)) for name in other)

    def test_the_revision_is_a_label_too(self, make_spec: MakeSpec) -> None:
        spec = make_spec()
        objects: Any = render(place(spec, Profile()), spec)

        revisions = {each["metadata"]["labels"]["sftjob.dev/revision"] for each in objects}

        (revision,) = revisions
        assert all(each["metadata"]["name"].startswith(f"{revision}-") for each in objects)

    def test_another_image_of_the_training_is_another_job(self, make_spec: MakeSpec) -> None:
        spec = make_spec()
        profiles = [Profile.model_validate_json(json.dumps({"images": {"train": image}})) for image in ("a:1", "a:2")]

        one, other = (names(place(spec, profile), spec) for profile in profiles)

        assert set(one).isdisjoint(other)

    def test_another_evaluation_is_another_job_of_the_same_run(self, make_spec: MakeSpec) -> None:
        one, other = make_spec(), make_spec(evaluation={"batch_size": 2})

        assert run_id(one) == run_id(other)
        assert names(place(one, Profile()), one) != names(place(other, Profile()), other)
