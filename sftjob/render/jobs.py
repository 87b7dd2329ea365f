"""The objects of a training run: ConfigMap, ServiceAccount, Job, and the Service of several nodes."""

from sftjob.contract import RENDEZVOUS_PORT, ExitCode, JobAction
from sftjob.place import Placement
from sftjob.render.manifest import Identity, Json, Manifest, metadata, present, strings
from sftjob.render.pod import TRAINER, train_pod


def config_map(placement: Placement, identity: Identity, data: dict[str, str]) -> Manifest:
    """The authored spec. Immutable: another spec or image is another object, so that no pod sees two."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(identity.config_map, placement, identity),
        "immutable": True,
        "data": strings(data),
    }


def service_account(placement: Placement, identity: Identity) -> Manifest:
    """An identity towards the cloud, by annotation; it has no rights in the cluster and hands out no token."""
    annotations = placement.service_account_annotations
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(identity.service_account, placement, identity, annotations),
        "automountServiceAccountToken": False,
    }


def headless_service(placement: Placement, identity: Identity) -> Manifest:
    """Names for the pods of several nodes. It is no load balancer, and answers before pods are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(identity.service, placement, identity),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": identity.job},
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }


def train_job(placement: Placement, identity: Identity) -> Manifest:
    """An Indexed Job with a pod for each node; of a single pod, too, so that all look alike from inside."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(identity.job, placement, identity, placement.annotations),
        "spec": present(
            {
                "completionMode": "Indexed",
                "completions": placement.nodes,
                "parallelism": placement.nodes,
                "backoffLimit": placement.retries,
                "podFailurePolicy": {"rules": _failure_rules()},
                # The only policy that podFailurePolicy allows. A pod that is terminating still holds its GPUs.
                "podReplacementPolicy": "Failed",
                "activeDeadlineSeconds": placement.active_deadline_seconds,
                "ttlSecondsAfterFinished": placement.ttl_seconds_after_finished,
                "template": train_pod(placement, identity),
            }
        ),
    }


def _failure_rules() -> list[Json]:
    """First match wins: a permanent error ends the Job even in a pod that is being evicted.

    What no rule names counts towards `backoffLimit`, also a SIGKILL for memory (137), which Kubernetes does not tell
    from other ones.
    """
    disrupted: Manifest = {"type": "DisruptionTarget", "status": "True"}
    return [
        _exit_code_rule(JobAction.FAIL_JOB),
        _exit_code_rule(JobAction.IGNORE),
        {"action": JobAction.IGNORE.value, "onPodConditions": [disrupted]},
    ]


def _exit_code_rule(action: JobAction) -> Manifest:
    return {
        "action": action.value,
        "onExitCodes": {
            # Named, so that the exit of a sidecar that others inject decides nothing.
            "containerName": TRAINER,
            "operator": "In",
            "values": [*sorted(code.value for code in ExitCode if code and code.action is action)],
        },
    }
