"""What a run has besides Jobs: ConfigMap, ServiceAccount, Service, NetworkPolicy and a volume for base models."""

from sftjob.contract import RENDEZVOUS_PORT, Component, Label
from sftjob.place import Placement
from sftjob.render.manifest import Identity, Json, Manifest, metadata, present, strings
from sftjob.spec.network import NetworkPolicy
from sftjob.spec.profile import ModelCache

_DNS_PORT = 53


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
    """An identity towards the cloud, by annotation; by itself it has no rights in the cluster, and no token."""
    annotations = placement.service_accounts.annotations
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(identity.service_account, placement, identity, annotations=annotations),
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
            "selector": {
                Label.COMPONENT.value: Component.TRAIN.value,
                Label.REVISION.value: identity.stem,
            },
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }


def network_policy(placement: Placement, policy: NetworkPolicy, identity: Identity) -> Manifest:
    """Pods of the run reach each other on every port (NCCL and gloo choose theirs), DNS, and what the profile lists."""
    run: Manifest = {"podSelector": {"matchLabels": {Label.RUN_ID.value: identity.run_id}}}
    dns: list[Json] = [{"protocol": protocol, "port": _DNS_PORT} for protocol in ("UDP", "TCP")]
    listed: list[Json] = [
        {
            "to": [{"ipBlock": {"cidr": egress.cidr}}],
            "ports": [{"protocol": "TCP", "port": port} for port in egress.ports],
        }
        for egress in policy.egress
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(identity.service_account, placement, identity),
        "spec": {
            **run,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [run]}],
            "egress": [{"to": [run]}, {"ports": dns}, *listed],
        },
    }


def cache_claim(placement: Placement, cache: ModelCache, identity: Identity) -> Manifest:
    """A volume that outlives the run's pods, and is deleted with its other objects."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(identity.cache_claim, placement, identity),
        "spec": present(
            {
                "accessModes": [cache.access_mode],
                "storageClassName": cache.storage_class_name,
                "resources": {"requests": {"storage": cache.size}},
            }
        ),
    }
