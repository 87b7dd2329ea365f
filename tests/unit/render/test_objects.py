from collections.abc import Callable
from typing import Any

from sftjob.contract import Component
from sftjob.place import Placement
from sftjob.render.manifest import Identity
from sftjob.render.objects import cache_claim, network_policy
from sftjob.render.train import train_pod

Make = Callable[..., Placement]
IDENTITY = Identity(run_id="job-01234567", revision="abab", component=Component.TRAIN)
RUN = {"podSelector": {"matchLabels": {"sftjob.dev/run-id": "job-01234567"}}}


class TestNetworkPolicy:
    def test_run_names_and_what_is_listed(self, make_placement: Make) -> None:
        listed = [{"cidr": "10.0.0.0/8", "ports": [7070, 443]}, {"cidr": "169.254.170.23/32", "ports": [80]}]
        placement = make_placement(profile={"network_policy": {"egress": listed}})
        assert placement.network_policy

        spec: Any = network_policy(placement, placement.network_policy, IDENTITY)["spec"]

        assert spec["podSelector"] == RUN["podSelector"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert spec["ingress"] == [{"from": [RUN]}]
        own, names, *rest = spec["egress"]
        assert own == {"to": [RUN]}
        # Without this rule nothing resolves and everything hangs.
        assert names == {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
        assert [(rule["to"][0]["ipBlock"]["cidr"], [port["port"] for port in rule["ports"]]) for rule in rest] == [
            ("10.0.0.0/8", [7070, 443]),
            ("169.254.170.23/32", [80]),
        ]


class TestModelCache:
    def test_a_claim_that_the_run_brings(self, make_placement: Make) -> None:
        cache = {"size": "200Gi", "storage_class_name": "fast", "access_mode": "ReadWriteMany"}
        placement = make_placement(profile={"model_cache": cache})
        assert placement.model_cache

        claim: Any = cache_claim(placement, placement.model_cache, IDENTITY)

        assert claim["spec"] == {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "fast",
            "resources": {"requests": {"storage": "200Gi"}},
        }
        assert mounted(placement) == ("/cache", claim["metadata"]["name"])

    def test_a_claim_that_exists(self, make_placement: Make) -> None:
        assert mounted(make_placement(profile={"model_cache": {"claim": "models"}})) == ("/cache", "models")


def mounted(placement: Placement) -> tuple[str, str]:
    pod: Any = train_pod(placement, IDENTITY)["spec"]
    (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "cache"]
    (volume,) = [each for each in pod["volumes"] if each["name"] == "cache"]
    variables = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    assert variables["SFTJOB_CACHE"] == mount["mountPath"]
    return mount["mountPath"], volume["persistentVolumeClaim"]["claimName"]
