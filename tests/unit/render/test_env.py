from collections.abc import Callable
from typing import Any, Final

import pytest

from sftjob.contract import Component, Env
from sftjob.errors import SpecError
from sftjob.place import Placement
from sftjob.render.env import train_environment
from sftjob.render.manifest import Identity

Make = Callable[..., Placement]
IDENTITY = Identity(run_id="job-01234567", revision="abab", component=Component.TRAIN)
FROM_SECRETS = {
    "storage": {"credentials_secret": {"name": "store", "key": "x"}},
    "hub_token_secret": {"name": "hub", "key": "y"},
}


def variables(placement: Placement) -> dict[str, Any]:
    """Name → value, or → path of the pod's field."""
    listed: Any = train_environment(placement, IDENTITY)
    return {each["name"]: each.get("value") or each["valueFrom"]["fieldRef"]["fieldPath"] for each in listed}


class TestEnvironment:
    def test_each_name_once(self, make_placement: Make) -> None:
        listed: Any = train_environment(make_placement(profile=FROM_SECRETS), IDENTITY)

        names = [each["name"] for each in listed]

        assert len(names) == len(set(names)) > 15

    def test_owner_is_the_job(self, make_placement: Make) -> None:
        values = variables(make_placement())

        assert values[Env.OWNER] == "metadata.labels['batch.kubernetes.io/controller-uid']"
        assert values[Env.POD_UID] == "metadata.uid"

    def test_pods_of_several_nodes_know_the_first_by_name(self, make_placement: Make) -> None:
        values = variables(make_placement(launch={"nodes": 2}))

        assert values[Env.MASTER_ADDR] == "job-01234567-abab-train-0.job-01234567-abab-train"
        assert values[Env.MASTER_PORT] == "29500"
        assert Env.MASTER_ADDR not in variables(make_placement())

    def test_grace_and_its_margin(self, make_placement: Make) -> None:
        values = variables(make_placement(kubernetes={"termination_grace_period_seconds": 300}))

        assert (values[Env.GRACE_SECONDS], values["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) == ("300", "270")

    def test_storage_uri_only_where_the_spec_has_none(self, make_placement: Make) -> None:
        profile = {"storage": {"uri": "s3://runs/all"}}

        assert Env.STORAGE_URI not in variables(make_placement(profile=profile))
        assert variables(make_placement(profile=profile, storage={}))[Env.STORAGE_URI] == "s3://runs/all"

    @pytest.mark.parametrize(
        ("endpoint", "checksums"),
        [
            ("http://s3.store.svc:7070", "when_required"),
            ("https://amazonaws.com.example", "when_required"),
            ("https://s3.eu-central-1.amazonaws.com", None),
            ("https://s3.cn-north-1.amazonaws.com.cn", None),
            (None, None),
        ],
    )
    def test_checksums_are_asked_of_aws_alone(
        self, make_placement: Make, endpoint: str | None, checksums: str | None
    ) -> None:
        storage = {"endpoint_url": endpoint} if endpoint else {}

        values = variables(make_placement(profile={"storage": storage}))

        assert values.get("AWS_ENDPOINT_URL_S3") == endpoint
        assert values.get("AWS_REQUEST_CHECKSUM_CALCULATION") == checksums
        assert values.get("AWS_RESPONSE_CHECKSUM_VALIDATION") == checksums

    def test_region_under_both_names(self, make_placement: Make) -> None:
        values = variables(make_placement(profile={"storage": {"region": "eu-central-1"}}))

        assert (values["AWS_REGION"], values["AWS_DEFAULT_REGION"]) == ("eu-central-1", "eu-central-1")
        assert "AWS_REGION" not in variables(make_placement())

    def test_owner_is_the_jobset_where_there_is_one(self, make_placement: Make) -> None:
        values = variables(make_placement(profile={"engine": "jobset"}))

        assert values[Env.OWNER] == "metadata.labels['jobset.sigs.k8s.io/jobset-uid']"

    def test_the_platforms_own_win_over_those_of_libraries(self, make_placement: Make) -> None:
        env = {"NCCL_DEBUG": "INFO", "NCCL_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "3"}

        values = variables(make_placement(profile={"env": env}, launch={"nodes": 2}))

        assert {name: values[name] for name in env} == env

    def test_secrets_are_files(self, make_placement: Make) -> None:
        with_secrets, without = variables(make_placement(profile=FROM_SECRETS)), variables(make_placement())

        assert with_secrets["AWS_SHARED_CREDENTIALS_FILE"] == "/var/run/secrets/sftjob/aws/credentials"
        assert with_secrets["HF_TOKEN_PATH"] == "/var/run/secrets/sftjob/hub/token"
        assert set(with_secrets) - set(without) == {"AWS_SHARED_CREDENTIALS_FILE", "HF_TOKEN_PATH"}

    def test_no_gpu_for_cpu_pods(self, make_placement: Make) -> None:
        assert variables(make_placement(launch={"gpus_per_node": 0}))["NVIDIA_VISIBLE_DEVICES"] == "void"
        assert "NVIDIA_VISIBLE_DEVICES" not in variables(make_placement())

    def test_caches_are_writable(self, make_placement: Make) -> None:
        values = variables(make_placement())

        for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR", "MPLCONFIGDIR"):
            assert values[name].startswith("/workspace/")

    def test_dollars_stay_dollars(self, make_placement: Make) -> None:
        profile = {"storage": {"uri": "s3://runs/$(HOME)/$$"}}

        assert variables(make_placement(profile=profile, storage={}))[Env.STORAGE_URI] == "s3://runs/$$(HOME)/$$$$"


class TestWandb:
    PROFILE: Final = {"wandb_secret": {"name": "wandb", "key": "api-key"}}

    def test_the_key_is_named_and_only_where_it_is_needed(self, make_placement: Make) -> None:
        asked = make_placement(profile=self.PROFILE, monitoring={"report_to": ["wandb"]})
        listed: Any = train_environment(asked, IDENTITY)

        (found,) = [each for each in listed if each["name"] == "WANDB_API_KEY"]

        assert found == {
            "name": "WANDB_API_KEY",
            "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "api-key"}},
        }
        assert "WANDB_API_KEY" not in variables(make_placement(profile=self.PROFILE))

    def test_without_a_key_nothing_is_rendered(self, make_placement: Make) -> None:
        with pytest.raises(SpecError, match="wandb_secret"):
            make_placement(monitoring={"report_to": ["wandb"]})
