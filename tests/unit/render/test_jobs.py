from collections.abc import Callable
from typing import Any

import pytest

from sftjob.contract import Component, ExitCode, JobAction
from sftjob.place import Placement
from sftjob.render.jobs import config_map, headless_service, service_account, train_job
from sftjob.render.manifest import Identity

Make = Callable[..., Placement]
IDENTITY = Identity(run_id="job-01234567", digest="ab" * 32, component=Component.TRAIN)


def job(placement: Placement) -> Any:
    return train_job(placement, IDENTITY)


def decide(rules: Any, exit_code: int, *, disrupted: bool = False) -> str:
    """What the Job controller does with a pod: the first rule that matches, else the pod counts."""
    for rule in rules:
        if exit_code in rule.get("onExitCodes", {}).get("values", ()):
            return str(rule["action"])
        if disrupted and "onPodConditions" in rule:
            return str(rule["action"])
    return "Count"


class TestFailurePolicy:
    @pytest.mark.parametrize("code", [code for code in ExitCode if code], ids=lambda code: code.name)
    def test_every_exit_code_has_its_action(self, make_placement: Make, code: ExitCode) -> None:
        rules = job(make_placement())["spec"]["podFailurePolicy"]["rules"]

        assert decide(rules, code) == code.action
        evicted = JobAction.FAIL_JOB if code.action is JobAction.FAIL_JOB else JobAction.IGNORE
        assert decide(rules, code, disrupted=True) == evicted

    def test_kills_count_unless_the_node_did_it(self, make_placement: Make) -> None:
        rules = job(make_placement())["spec"]["podFailurePolicy"]["rules"]

        assert decide(rules, 137) == "Count"
        assert decide(rules, 137, disrupted=True) == "Ignore"

    def test_what_the_api_server_asks_for(self, make_placement: Make) -> None:
        spec = job(make_placement())["spec"]
        rules = spec["podFailurePolicy"]["rules"]

        assert spec["template"]["spec"]["restartPolicy"] == "Never"
        assert spec["podReplacementPolicy"] == "Failed"
        assert len(rules) <= 20
        for rule in rules:
            values = rule.get("onExitCodes", {}).get("values", [1])
            assert values == sorted(set(values))
            assert 0 not in values


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

    def test_names_belong_together(self, make_placement: Make) -> None:
        placement = make_placement()
        account, spec_map = service_account(placement, IDENTITY), config_map(placement, IDENTITY, {"spec.json": "{}"})
        pod = job(placement)["spec"]["template"]["spec"]

        assert job(placement)["metadata"]["name"] == "job-01234567-abab-train"
        assert pod["serviceAccountName"] == account["metadata"]["name"]  # type: ignore[index,call-overload]
        assert pod["volumes"][0]["configMap"]["name"] == spec_map["metadata"]["name"]  # type: ignore[index,call-overload]


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


class TestSeveralNodes:
    def test_the_service_names_the_pods_of_this_job(self, make_placement: Make) -> None:
        placement = make_placement(launch={"nodes": 2})
        service: Any = headless_service(placement, IDENTITY)
        template = job(placement)["spec"]["template"]["spec"]

        assert template["subdomain"] == service["metadata"]["name"]
        assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job(placement)["metadata"]["name"]}
        assert service["spec"]["clusterIP"] == "None"
        # Pods find each other while they load; nothing of ours makes them ready before.
        assert service["spec"]["publishNotReadyAddresses"] is True

    def test_there_is_a_pod_for_each_node(self, make_placement: Make) -> None:
        spec = job(make_placement(launch={"nodes": 3}))["spec"]

        assert (spec["completions"], spec["parallelism"]) == (3, 3)
        assert "subdomain" not in job(make_placement())["spec"]["template"]["spec"]
