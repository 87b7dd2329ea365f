"""The training: an Indexed Job with a pod for each node."""

from typing import Final

from sftjob.contract import Component, Label
from sftjob.place import Placement
from sftjob.render.env import train_environment
from sftjob.render.job import indexed_job
from sftjob.render.manifest import Identity, Json, Manifest, queue_labels, strings
from sftjob.render.pod import pod_template, resources, volumes, work_mounts, workload_container

TRAINER: Final = "trainer"


def train_job(placement: Placement, identity: Identity) -> Manifest:
    """A Job with a pod for each node."""
    return indexed_job(
        placement,
        identity,
        container=TRAINER,
        template=train_pod(placement, identity),
        backoff_limit=placement.backoff_limit,
        pods=placement.nodes,
        deadline_seconds=placement.active_deadline_seconds,
        labels=queue_labels(placement),
        annotations=placement.annotations,
    )


def train_pod(placement: Placement, identity: Identity) -> Manifest:
    """The template of the training's pods."""
    return pod_template(
        placement,
        identity,
        container=workload_container(
            TRAINER,
            placement.train.image,
            module="sftjob.train",
            environment=train_environment(placement, identity),
            resources=resources(placement, placement.train, extra=placement.extra_resources),
            mounts=work_mounts(placement),
        ),
        volumes=volumes(placement, placement.train, identity),
        size=placement.train,
        grace_seconds=placement.termination_grace_period_seconds,
        annotations={**_topology(placement), **placement.annotations},
        affinity=_together_but_apart(placement, identity) if placement.nodes > 1 else None,
        # With it pod 0 has a name under which its peers find it; a JobSet sets its own.
        subdomain=identity.service if placement.nodes > 1 and placement.engine == "batch" else None,
    )


def _topology(placement: Placement) -> dict[str, str]:
    """How close Kueue is to place the pods."""
    topology = placement.queue.topology if placement.queue else None
    return {f"kueue.x-k8s.io/podset-{topology.mode}-topology": topology.level or "true"} if topology else {}


def _together_but_apart(placement: Placement, identity: Identity) -> Manifest:
    """In one zone, since ranks wait for each other at every step, and each on a node of its own. Both are wishes."""
    peers: Manifest = {
        "matchLabels": strings({Label.COMPONENT.value: Component.TRAIN.value, Label.RUN_ID.value: identity.run_id})
    }

    def wish(topology_key: str) -> Manifest:
        terms: list[Json] = [{"weight": 100, "podAffinityTerm": {"labelSelector": peers, "topologyKey": topology_key}}]
        return {"preferredDuringSchedulingIgnoredDuringExecution": terms}

    return {"podAffinity": wish(placement.topology_key), "podAntiAffinity": wish("kubernetes.io/hostname")}
