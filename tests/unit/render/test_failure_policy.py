import re
from typing import Any

import pytest

from sftjob.contract import ExitCode, JobAction
from sftjob.render.failure_policy import gang_failure_policy, job_set_failure_policy, pod_failure_policy

CODES = [code for code in ExitCode if code]


def decide(policy: Any, exit_code: int, *, disrupted: bool = False) -> str:
    """What the Job controller does with a pod: the first rule that matches, else the pod counts."""
    for rule in policy["rules"]:
        if exit_code in rule.get("onExitCodes", {}).get("values", ()):
            return str(rule["action"])
        if disrupted and "onPodConditions" in rule:
            return str(rule["action"])
    return "Count"


def judge(exit_code: int, *, disrupted: bool = False) -> str:
    """What a JobSet does, whose Job has failed for this pod."""
    job = decide(gang_failure_policy("trainer"), exit_code, disrupted=disrupted)
    # As Kubernetes 1.34 words it.
    message = f"Container trainer for pod ns/run-w-0-0-abcde failed with exit code {exit_code} matching FailJob rule"
    return judge_job("BackoffLimitExceeded" if job == "Count" else "PodFailurePolicy", message)


def judge_job(reason: str, message: str = "") -> str:
    """What a JobSet does with a failed Job: the first rule that matches, else a restart that counts."""
    policy: Any = job_set_failure_policy(3)
    for rule in policy["rules"]:
        if reason in rule["onJobFailureReasons"] and all(
            re.search(each, message) for each in rule.get("onJobFailureMessagePatterns", ())
        ):
            return str(rule["action"])
    return "RestartJobSet"


class TestPodFailurePolicy:
    @pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
    def test_every_exit_code_has_its_action(self, code: ExitCode) -> None:
        policy = pod_failure_policy("trainer")

        assert decide(policy, code) == code.action
        evicted = JobAction.FAIL_JOB if code.action is JobAction.FAIL_JOB else JobAction.IGNORE
        assert decide(policy, code, disrupted=True) == evicted

    def test_kills_count_unless_the_node_did_it(self) -> None:
        policy = pod_failure_policy("trainer")

        assert decide(policy, 137) == "Count"
        assert decide(policy, 137, disrupted=True) == "Ignore"

    @pytest.mark.parametrize("policy", [pod_failure_policy, gang_failure_policy])
    def test_what_the_api_server_asks_for(self, policy: Any) -> None:
        rules = policy("trainer")["rules"]

        assert len(rules) <= 20
        for rule in rules:
            values = rule.get("onExitCodes", {}).get("values", [1])
            assert values == sorted(set(values))
            assert 0 not in values
            assert rule.get("onExitCodes", {"containerName": "trainer"})["containerName"] == "trainer"


class TestJobSet:
    @pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
    def test_every_exit_code_has_its_action(self, code: ExitCode) -> None:
        expected = {
            JobAction.FAIL_JOB: "FailJobSet",
            JobAction.IGNORE: "RestartJobSetAndIgnoreMaxRestarts",
            JobAction.COUNT: "RestartJobSet",
        }

        assert judge(code) == expected[code.action]

    def test_kills_count(self) -> None:
        assert judge(137) == "RestartJobSet"

    def test_a_code_is_not_taken_for_the_beginning_of_another(self) -> None:
        assert judge(6) == judge(640) == "RestartJobSet"

    def test_a_deadline_is_no_crash(self) -> None:
        assert judge_job("DeadlineExceeded") == "FailJobSet"

    def test_retries(self) -> None:
        assert job_set_failure_policy(7)["maxRestarts"] == 7
