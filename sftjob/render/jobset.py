"""The training as a JobSet, which restarts the pods of a gang together: https://jobset.sigs.k8s.io."""

from sftjob.place import Placement
from sftjob.render.failure_policy import gang_failure_policy, job_set_failure_policy
from sftjob.render.manifest import Identity, Manifest, metadata, present, queue_labels
from sftjob.render.train import TRAINER, train_pod
from sftjob.spec.names import JOBSET_WORKER


def train_job_set(placement: Placement, identity: Identity) -> Manifest:
    """A JobSet of one Job, whose failures it judges."""
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata(
            identity.job, placement, identity, labels=queue_labels(placement), annotations=placement.annotations
        ),
        "spec": {
            # It makes the headless Service itself.
            "network": {
                "enableDNSHostnames": True,
                "subdomain": identity.service,
                "publishNotReadyAddresses": True,
            },
            "failurePolicy": job_set_failure_policy(placement.retries),
            "ttlSecondsAfterFinished": placement.ttl_seconds_after_finished,
            "replicatedJobs": [
                {"name": JOBSET_WORKER, "template": {"spec": _job_spec(placement, identity)}},
            ],
        },
    }


def _job_spec(placement: Placement, identity: Identity) -> Manifest:
    return present(
        {
            "completionMode": "Indexed",
            "completions": placement.nodes,
            "parallelism": placement.nodes,
            "backoffLimit": 0,
            "podFailurePolicy": gang_failure_policy(TRAINER),
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": placement.active_deadline_seconds,
            "template": train_pod(placement, identity),
        }
    )
