"""What the Jobs of a run have in common."""

from collections.abc import Mapping

from sftjob.place import Placement
from sftjob.render.failure_policy import pod_failure_policy
from sftjob.render.manifest import Identity, Manifest, metadata, present


def indexed_job(
    placement: Placement,
    identity: Identity,
    *,
    container: str,
    template: Manifest,
    backoff_limit: int,
    pods: int = 1,
    suspend: bool | None = None,
    deadline_seconds: int | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """An Indexed Job; of a single pod, too, so that all look alike from inside.

    Args:
        container: whose exit code decides what a failed pod means.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(identity.job, placement, identity, labels=labels, annotations=annotations),
        "spec": present(
            {
                "suspend": suspend,
                "completionMode": "Indexed",
                "completions": pods,
                "parallelism": pods,
                "backoffLimit": backoff_limit,
                "podFailurePolicy": pod_failure_policy(container),
                # The only policy that podFailurePolicy allows. A pod that is terminating still holds its GPUs.
                "podReplacementPolicy": "Failed",
                "activeDeadlineSeconds": deadline_seconds,
                "ttlSecondsAfterFinished": placement.ttl_seconds_after_finished,
                "template": template,
            }
        ),
    }
