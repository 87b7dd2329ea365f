"""What a Job does when a pod fails: the table of exit codes as podFailurePolicy and as a JobSet's failurePolicy."""

from sftjob.contract import ExitCode, JobAction
from sftjob.render.manifest import Json, Manifest

_DISRUPTED: Manifest = {"type": "DisruptionTarget", "status": "True"}
"""Kubernetes itself takes the pod away: eviction, drain, preemption."""


def pod_failure_policy(container: str) -> Manifest:
    """First match wins: a permanent error ends the Job even in a pod that is being evicted.

    What no rule names counts towards `backoffLimit`, also a SIGKILL for memory (137), which Kubernetes does not tell
    from other ones.

    Args:
        container: whose exit decides, so that a sidecar that others inject decides nothing.
    """
    return {
        "rules": [
            _exit_code_rule(JobAction.FAIL_JOB, JobAction.FAIL_JOB, container),
            _exit_code_rule(JobAction.IGNORE, JobAction.IGNORE, container),
            {"action": JobAction.IGNORE.value, "onPodConditions": [_DISRUPTED]},
        ]
    }


def gang_failure_policy(container: str) -> Manifest:
    """Of a JobSet's Job, which restarts nothing itself: interruptions fail it, too, and the JobSet starts all anew."""
    return {
        "rules": [
            _exit_code_rule(JobAction.FAIL_JOB, JobAction.FAIL_JOB, container),
            _exit_code_rule(JobAction.IGNORE, JobAction.FAIL_JOB, container),
            {"action": JobAction.FAIL_JOB.value, "onPodConditions": [_DISRUPTED]},
        ]
    }


def job_set_failure_policy(retries: int) -> Manifest:
    """A permanent code fails the JobSet, an interruption restarts it for nothing, the rest counts.

    The Job controller gives the same reason for both and tells the code only in its message.
    """
    permanent = "|".join(str(code) for code in _codes(JobAction.FAIL_JOB))
    return {
        "maxRestarts": retries,
        # The next pods are made only when the last ones are gone.
        "restartStrategy": "BlockingRecreate",
        "rules": [
            {
                "name": "permanent",
                "action": "FailJobSet",
                "onJobFailureReasons": ["PodFailurePolicy"],
                "onJobFailureMessagePatterns": [f"failed with exit code ({permanent}) "],
            },
            {
                # It counts from each restart on, so a restart would undo it.
                "name": "deadline",
                "action": "FailJobSet",
                "onJobFailureReasons": ["DeadlineExceeded"],
            },
            {
                "name": "interrupted",
                "action": "RestartJobSetAndIgnoreMaxRestarts",
                "onJobFailureReasons": ["PodFailurePolicy"],
            },
        ],
    }


def _exit_code_rule(codes: JobAction, action: JobAction, container: str) -> Manifest:
    values: list[Json] = [*_codes(codes)]
    return {
        "action": action.value,
        "onExitCodes": {"containerName": container, "operator": "In", "values": values},
    }


def _codes(action: JobAction) -> list[int]:
    return sorted(code.value for code in ExitCode if code and code.action is action)
