from collections.abc import Callable
from typing import Any

import pytest

from sftjob.contract import Component, Env
from sftjob.place import Placement
from sftjob.render.evaluation import evaluation_job
from sftjob.render.gate import gate_job, gate_role, gate_role_binding, gate_service_account
from sftjob.render.manifest import Identity

Make = Callable[..., Placement]
TRAIN = Identity(run_id="job-01234567", revision="abab", component=Component.TRAIN)
EVAL, GATE = TRAIN.of(Component.EVAL), TRAIN.of(Component.GATE)


def evaluation(placement: Placement) -> Any:
    assert placement.evaluation
    return evaluation_job(placement, placement.evaluation, EVAL)


def evaluator(placement: Placement) -> Any:
    return evaluation(placement)["spec"]["template"]["spec"]["containers"][0]


def gate(placement: Placement) -> Any:
    assert placement.gate_image
    return gate_job(placement, placement.gate_image, GATE)


def gate_variables(placement: Placement) -> dict[str, Any]:
    listed = gate(placement)["spec"]["template"]["spec"]["containers"][0]["env"]
    return {each["name"]: each.get("value") or each["valueFrom"]["fieldRef"]["fieldPath"] for each in listed}


class TestEvaluation:
    def test_is_created_suspended(self, make_placement: Make) -> None:
        made = evaluation(make_placement())

        assert made["spec"]["suspend"] is True
        assert not [key for key in made["metadata"]["labels"] if "kueue" in key]

    def test_waits_in_a_queue_that_does_not_exist(self, make_placement: Make) -> None:
        """In the real one Kueue would admit it before the training is done; without one, in `default`."""
        queue = {"name": "team-a", "priority_class": "high"}
        labels = evaluation(make_placement(profile={"queue": queue}))["metadata"]["labels"]

        assert labels["kueue.x-k8s.io/queue-name"] == "sftjob-held"
        assert labels["kueue.x-k8s.io/priority-class"] == "high"

    def test_needs_one_gpu_of_many(self, make_placement: Make) -> None:
        made = evaluator(make_placement(launch={"nodes": 2, "gpus_per_node": 8}))

        assert made["resources"]["limits"]["nvidia.com/gpu"] == 1

    def test_sizes_of_its_own(self, make_placement: Make) -> None:
        own = {"gpus": 0, "cpu": "2", "memory": "8Gi", "ephemeral_storage": "20Gi", "shared_memory": "1Gi"}
        placement = make_placement(launch={"gpus_per_node": 8, "gpu": "H100"}, resources={"evaluation": own})

        pod = evaluation(placement)["spec"]["template"]["spec"]

        assert pod["containers"][0]["resources"] == {
            "requests": {"cpu": "2", "memory": "8Gi", "ephemeral-storage": "20Gi"},
            "limits": {"memory": "8Gi", "ephemeral-storage": "20Gi"},
        }
        # Nothing that is for pods with GPUs.
        assert not {"nodeSelector", "tolerations"} & pod.keys()

    def test_image_of_its_own(self, make_placement: Make) -> None:
        images = {"train": "r/train:1", "eval": "r/eval:1", "gate": "r/gate:1"}
        placement = make_placement(profile={"images": images})

        assert evaluator(placement)["image"] == "r/eval:1"
        assert gate(placement)["spec"]["template"]["spec"]["containers"][0]["image"] == "r/gate:1"


class TestGate:
    def test_may_do_what_it_does_and_nothing_else(self, make_placement: Make) -> None:
        role: Any = gate_role(make_placement(), GATE)

        assert role["rules"] == [
            {
                "apiGroups": ["batch"],
                "resources": ["jobs"],
                "resourceNames": ["job-01234567-abab-train"],
                "verbs": ["get"],
            },
            {
                "apiGroups": ["batch"],
                "resources": ["jobs"],
                "resourceNames": ["job-01234567-abab-eval"],
                "verbs": ["get", "patch", "delete"],
            },
        ]

    def test_looks_at_the_jobset(self, make_placement: Make) -> None:
        placement = make_placement(profile={"engine": "jobset"})
        role: Any = gate_role(placement, GATE)

        assert role["rules"][0]["apiGroups"] == ["jobset.x-k8s.io"]
        assert role["rules"][0]["resources"] == ["jobsets"]
        assert gate_variables(placement)[Env.TRAIN] == "jobset/job-01234567-abab-train"

    def test_is_told_whom_to_watch(self, make_placement: Make) -> None:
        values = gate_variables(make_placement(profile={"queue": {"name": "team-a"}}))

        assert values[Env.TRAIN] == "job/job-01234567-abab-train"
        assert values[Env.EVAL] == "job-01234567-abab-eval"
        assert values[Env.NAMESPACE] == "metadata.namespace"
        assert values[Env.QUEUE] == "team-a"
        assert Env.QUEUE not in gate_variables(make_placement())

    def test_it_alone_has_a_token(self, make_placement: Make) -> None:
        placement = make_placement()
        pods = [made["spec"]["template"]["spec"] for made in (gate(placement), evaluation(placement))]

        assert [pod["automountServiceAccountToken"] for pod in pods] == [True, False]
        assert pods[0]["serviceAccountName"] != pods[1]["serviceAccountName"]

    @pytest.mark.parametrize(
        ("account", "name"),
        [({}, "job-01234567-abab-gate"), ({"name": "a"}, "a"), ({"name": "a", "gate_name": "b"}, "b")],
    )
    def test_the_role_is_bound_to_its_account(self, make_placement: Make, account: dict[str, str], name: str) -> None:
        placement = make_placement(profile={"service_account": account, "namespace": "team"})
        binding: Any = gate_role_binding(placement, GATE)

        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": "team"}]
        assert binding["roleRef"]["name"] == "job-01234567-abab-gate"
        assert gate(placement)["spec"]["template"]["spec"]["serviceAccountName"] == name

    def test_its_account_is_the_same_towards_the_cloud(self, make_placement: Make) -> None:
        placement = make_placement(profile={"service_account": {"annotations": {"example.com/role": "r"}}})
        account: Any = gate_service_account(placement, GATE)

        assert account["metadata"]["annotations"] == {"example.com/role": "r"}

    def test_fits_on_any_node(self, make_placement: Make) -> None:
        placement = make_placement(
            launch={"gpus_per_node": 8, "gpu": "H100"},
            profile={"extra_resources": {"rdma/hca": 1}, "runtime_class_name": "nvidia"},
            kubernetes={"priority_class_name": "high"},
        )
        pod = gate(placement)["spec"]["template"]["spec"]

        assert not {"nodeSelector", "tolerations", "runtimeClassName", "priorityClassName"} & pod.keys()
        assert pod["containers"][0]["resources"]["limits"] == {"memory": "256Mi", "ephemeral-storage": "128Mi"}
