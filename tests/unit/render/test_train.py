from collections.abc import Callable
from typing import Any

import pytest

from sftjob.contract import Component
from sftjob.place import Placement
from sftjob.render.jobset import train_job_set
from sftjob.render.manifest import Identity
from sftjob.render.objects import config_map, headless_service, service_account
from sftjob.render.train import train_job, train_pod

Make = Callable[..., Placement]
IDENTITY = Identity(run_id="job-01234567", revision="abab", component=Component.TRAIN)
QUEUE = {"queue": {"name": "team-a"}}


def job(placement: Placement) -> Any:
    return train_job(placement, IDENTITY)


def job_set(placement: Placement) -> Any:
    return train_job_set(placement, IDENTITY)


def pod(placement: Placement) -> Any:
    return train_pod(placement, IDENTITY)


class TestTrainJob:
    def test_knobs(self, make_placement: Make) -> None:
        plain = job(make_placement())["spec"]
        knobs = {"retries": 0, "ttl_seconds_after_finished": 0, "active_deadline_seconds": 60}
        turned = job(make_placement(kubernetes=knobs))["spec"]

        assert (plain["backoffLimit"], plain["ttlSecondsAfterFinished"]) == (3, 604_800)
        assert "activeDeadlineSeconds" not in plain
        assert (turned["backoffLimit"], turned["ttlSecondsAfterFinished"], turned["activeDeadlineSeconds"]) == (
            0,
            0,
            60,
        )

    def test_one_pod(self, make_placement: Make) -> None:
        spec = job(make_placement())["spec"]

        assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 1, 1)
        assert spec["podReplacementPolicy"] == "Failed"
        assert not {"subdomain", "affinity"} & spec["template"]["spec"].keys()

    def test_names_belong_together(self, make_placement: Make) -> None:
        placement = make_placement()
        account: Any = service_account(placement, IDENTITY)
        spec_map: Any = config_map(placement, IDENTITY, {"spec.json": "{}"})
        spec = pod(placement)["spec"]

        assert job(placement)["metadata"]["name"] == "job-01234567-abab-train"
        assert spec["serviceAccountName"] == account["metadata"]["name"]
        assert spec["volumes"][0]["configMap"]["name"] == spec_map["metadata"]["name"]

    def test_annotations_of_the_spec_on_job_and_pod(self, make_placement: Make) -> None:
        made = job(make_placement(kubernetes={"annotations": {"team": "a"}}))

        assert made["metadata"]["annotations"] == {"team": "a"}
        assert made["spec"]["template"]["metadata"]["annotations"]["team"] == "a"


class TestSeveralNodes:
    def test_the_service_names_the_pods_of_this_job(self, make_placement: Make) -> None:
        placement = make_placement(launch={"nodes": 2})
        service: Any = headless_service(placement, IDENTITY)

        assert pod(placement)["spec"]["subdomain"] == service["metadata"]["name"]
        assert service["spec"]["selector"].items() <= pod(placement)["metadata"]["labels"].items()
        assert service["spec"]["selector"]["sftjob.dev/revision"] == "job-01234567-abab"
        assert service["spec"]["clusterIP"] == "None"
        # Pods find each other while they load; nothing of ours makes them ready before.
        assert service["spec"]["publishNotReadyAddresses"] is True

    def test_there_is_a_pod_for_each_node(self, make_placement: Make) -> None:
        spec = job(make_placement(launch={"nodes": 3}))["spec"]

        assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (3, 3, 9)

    def test_pods_wish_for_one_zone_and_for_a_node_each(self, make_placement: Make) -> None:
        affinity = pod(make_placement(launch={"nodes": 2}, profile={"topology_key": "example.com/rack"}))["spec"][
            "affinity"
        ]

        keys = {
            kind: [term["podAffinityTerm"]["topologyKey"] for term in wishes[next(iter(wishes))]]
            for kind, wishes in affinity.items()
        }
        assert keys == {"podAffinity": ["example.com/rack"], "podAntiAffinity": ["kubernetes.io/hostname"]}
        assert all(list(wishes) == ["preferredDuringSchedulingIgnoredDuringExecution"] for wishes in affinity.values())


class TestKueue:
    @pytest.mark.parametrize("engine", ["batch", "jobset"])
    def test_the_queue_is_a_label_of_what_it_admits(self, make_placement: Make, engine: str) -> None:
        queue = {"name": "team-a", "priority_class": "high"}
        placement = make_placement(profile={"queue": queue, "engine": engine})

        labels = (job_set if engine == "jobset" else job)(placement)["metadata"]["labels"]

        assert labels["kueue.x-k8s.io/queue-name"] == "team-a"
        assert labels["kueue.x-k8s.io/priority-class"] == "high"

    def test_it_is_no_label_of_pods(self, make_placement: Make) -> None:
        """Kueue would take them for pods that it has to admit one by one."""
        labels = pod(make_placement(profile=QUEUE))["metadata"]["labels"]

        assert not [key for key in labels if "kueue" in key]
        assert "suspend" not in job(make_placement(profile=QUEUE))["spec"]

    @pytest.mark.parametrize(
        ("topology", "annotation"),
        [
            ({"mode": "required", "level": "example.com/rack"}, ("required", "example.com/rack")),
            ({"mode": "preferred", "level": "example.com/block"}, ("preferred", "example.com/block")),
            ({"mode": "unconstrained"}, ("unconstrained", "true")),
        ],
    )
    def test_topology(self, make_placement: Make, topology: dict[str, str], annotation: tuple[str, str]) -> None:
        placement = make_placement(profile={"queue": {"name": "team-a", "topology": topology}})
        mode, value = annotation

        assert pod(placement)["metadata"]["annotations"][f"kueue.x-k8s.io/podset-{mode}-topology"] == value


class TestJobSet:
    def test_the_job_restarts_nothing_itself(self, make_placement: Make) -> None:
        spec = job_set(make_placement(profile={"engine": "jobset"}, launch={"nodes": 2}))["spec"]
        (replicated,) = spec["replicatedJobs"]
        child = replicated["template"]["spec"]

        assert (child["backoffLimit"], child["completions"], child["parallelism"]) == (0, 2, 2)
        # Not times nodes: the gang is started anew as a whole.
        assert spec["failurePolicy"]["maxRestarts"] == 3
        assert spec["failurePolicy"]["restartStrategy"] == "BlockingRecreate"

    def test_pods_find_the_first_under_the_name_that_a_jobset_gives(self, make_placement: Make) -> None:
        placement = make_placement(profile={"engine": "jobset"}, launch={"nodes": 2})
        spec = job_set(placement)["spec"]
        child = spec["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        variables = {each["name"]: each.get("value") for each in child["containers"][0]["env"]}

        assert spec["network"]["subdomain"] == "job-01234567-abab-train"
        assert variables["MASTER_ADDR"] == "job-01234567-abab-train-w-0-0.job-01234567-abab-train"
        # It would not be that of the JobSet's own Service otherwise.
        assert "subdomain" not in child

    def test_deadline_and_lifetime(self, make_placement: Make) -> None:
        knobs = {"active_deadline_seconds": 60, "ttl_seconds_after_finished": 5}
        spec = job_set(make_placement(profile={"engine": "jobset"}, kubernetes=knobs))["spec"]
        child = spec["replicatedJobs"][0]["template"]["spec"]

        assert (child["activeDeadlineSeconds"], spec["ttlSecondsAfterFinished"]) == (60, 5)
        # The JobSet deletes its Jobs; a Job that vanishes by itself would be taken for lost.
        assert "ttlSecondsAfterFinished" not in child


class TestServiceAccount:
    def test_annotations_of_the_profile_alone(self, make_placement: Make) -> None:
        account: Any = service_account(
            make_placement(
                profile={"service_account": {"annotations": {"example.com/role": "r"}}},
                kubernetes={"annotations": {"example.com/note": "n"}},
            ),
            IDENTITY,
        )

        assert account["metadata"]["annotations"] == {"example.com/role": "r"}
        assert account["automountServiceAccountToken"] is False

    def test_one_that_exists(self, make_placement: Make) -> None:
        placement = make_placement(profile={"service_account": {"name": "trainers"}})

        assert pod(placement)["spec"]["serviceAccountName"] == "trainers"
