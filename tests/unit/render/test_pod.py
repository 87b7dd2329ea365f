from collections.abc import Callable
from typing import Any

from sftjob.contract import Component
from sftjob.place import Placement
from sftjob.render.manifest import Identity
from sftjob.render.train import train_pod

Make = Callable[..., Placement]
IDENTITY = Identity(run_id="job-01234567", revision="abab", component=Component.TRAIN)


def pod(placement: Placement) -> Any:
    return train_pod(placement, IDENTITY)


def trainer(placement: Placement) -> Any:
    return pod(placement)["spec"]["containers"][0]


class TestTrainPod:
    def test_passes_pod_security_restricted(self, make_placement: Make) -> None:
        spec, container = pod(make_placement())["spec"], trainer(make_placement())

        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()

    def test_gpus_are_limits_and_only_where_asked_for(self, make_placement: Make) -> None:
        many, none = make_placement(launch={"gpus_per_node": 4}), make_placement(launch={"gpus_per_node": 0})

        assert trainer(many)["resources"]["limits"]["nvidia.com/gpu"] == 4
        assert trainer(many)["resources"]["requests"]["nvidia.com/gpu"] == 4
        assert trainer(none)["resources"]["limits"].keys() == {"memory", "ephemeral-storage"}
        assert "tolerations" in pod(many)["spec"]
        assert "tolerations" not in pod(none)["spec"]

    def test_memory_and_disk_are_promised_in_full(self, make_placement: Make) -> None:
        resources = trainer(make_placement())["resources"]

        for name in ("memory", "ephemeral-storage"):
            assert resources["requests"][name] == resources["limits"][name]
        assert "cpu" not in resources["limits"]

    def test_devices_of_the_platform(self, make_placement: Make) -> None:
        profile = {"gpu": {"resource": "nvidia.com/mig-1g.10gb"}, "extra_resources": {"rdma/hca": 2}}
        resources = trainer(make_placement(profile=profile))["resources"]

        for half in ("requests", "limits"):
            assert (resources[half]["nvidia.com/mig-1g.10gb"], resources[half]["rdma/hca"]) == (1, 2)
            assert "nvidia.com/gpu" not in resources[half]

    def test_a_limit_of_the_processor_where_the_platform_wants_one(self, make_placement: Make) -> None:
        resources = trainer(make_placement(profile={"cpu_limit": True}, resources={"cpu": "7"}))["resources"]

        assert resources["limits"]["cpu"] == resources["requests"]["cpu"] == "7"

    def test_labels_and_annotations_of_the_platform_are_on_pods(self, make_placement: Make) -> None:
        profile = {"pod_labels": {"azure.workload.identity/use": "true"}, "pod_annotations": {"example.com/a": "b"}}
        metadata = pod(make_placement(profile=profile))["metadata"]

        assert metadata["labels"]["azure.workload.identity/use"] == "true"
        assert metadata["annotations"]["example.com/a"] == "b"

    def test_tolerations_without_empty_fields(self, make_placement: Make) -> None:
        placement = make_placement(profile={"tolerations": [{"key": "pool", "value": "ml"}, {"operator": "Exists"}]})

        assert pod(placement)["spec"]["tolerations"] == [
            {"key": "pool", "operator": "Equal", "value": "ml"},
            {"operator": "Exists"},
        ]

    def test_user_annotations_win(self, make_placement: Make) -> None:
        placement = make_placement(kubernetes={"annotations": {"karpenter.sh/do-not-disrupt": "false"}})

        assert pod(placement)["metadata"]["annotations"] == {
            "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
            "karpenter.sh/do-not-disrupt": "false",
        }

    def test_labels_of_both(self, make_placement: Make) -> None:
        labels = pod(make_placement(kubernetes={"labels": {"team": "a"}}))["metadata"]["labels"]

        assert labels["sftjob.dev/run-id"] == "job-01234567"
        assert labels["team"] == "a"

    def test_every_mount_has_its_volume(self, make_placement: Make) -> None:
        secrets = {"storage": {"credentials_secret": {"name": "store", "key": "creds"}}}
        with_secret = make_placement(profile=secrets | {"hub_token_secret": {"name": "hub", "key": "t"}})

        for placement, count in ((make_placement(), 4), (with_secret, 6)):
            volumes = [volume["name"] for volume in pod(placement)["spec"]["volumes"]]
            assert [mount["name"] for mount in trainer(placement)["volumeMounts"]] == volumes
            assert len(volumes) == count

    def test_secret_key_becomes_a_file(self, make_placement: Make) -> None:
        placement = make_placement(profile={"storage": {"credentials_secret": {"name": "store", "key": "creds"}}})

        secret = pod(placement)["spec"]["volumes"][-1]["secret"]

        assert secret == {
            "secretName": "store",
            "defaultMode": 0o440,
            "items": [{"key": "creds", "path": "credentials"}],
        }

    def test_optional_fields(self, make_placement: Make) -> None:
        placement = make_placement(
            profile={"image_pull_secrets": ["a", "b"], "runtime_class_name": "nvidia", "host_users": False},
            kubernetes={"priority_class_name": "high"},
        )

        assert pod(placement)["spec"]["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]
        assert pod(placement)["spec"]["priorityClassName"] == "high"
        assert pod(placement)["spec"]["runtimeClassName"] == "nvidia"
        assert pod(placement)["spec"]["hostUsers"] is False
        absent = {"imagePullSecrets", "priorityClassName", "nodeSelector", "runtimeClassName", "hostUsers"}
        assert not absent & pod(make_placement())["spec"].keys()
