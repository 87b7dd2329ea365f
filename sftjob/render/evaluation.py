"""The evaluation: a Job that is created suspended, and that the gate resumes when training is durable."""

from typing import Final

from sftjob.contract import HELD_QUEUE, QUEUE_LABEL
from sftjob.place import ContainerSize, Placement
from sftjob.render.env import evaluation_environment
from sftjob.render.job import indexed_job
from sftjob.render.manifest import Identity, Manifest, queue_labels
from sftjob.render.pod import pod_template, resources, volumes, work_mounts, workload_container

EVALUATOR: Final = "evaluator"
_GRACE_SECONDS: Final = 60
"""Models that are done are stored already."""


def evaluation_job(placement: Placement, size: ContainerSize, identity: Identity) -> Manifest:
    """A Job of one pod. No GPU waits for the training: a suspended Job has no pods."""
    return indexed_job(
        placement,
        identity,
        container=EVALUATOR,
        template=_pod(placement, size, identity),
        backoff_limit=placement.retries,
        suspend=True,
        # Until the gate gives it the real one.
        labels={**queue_labels(placement), QUEUE_LABEL: HELD_QUEUE} if placement.queue else None,
    )


def _pod(placement: Placement, size: ContainerSize, identity: Identity) -> Manifest:
    return pod_template(
        placement,
        identity,
        container=workload_container(
            EVALUATOR,
            size.image,
            module="sftjob.app.evaluation",
            environment=evaluation_environment(placement, size),
            resources=resources(placement, size),
            mounts=work_mounts(placement),
        ),
        volumes=volumes(placement, size, identity),
        size=size,
        grace_seconds=_GRACE_SECONDS,
    )
