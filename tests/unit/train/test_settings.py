from pathlib import Path

import pytest

from sftjob.contract import Env
from sftjob.errors import SpecError
from sftjob.train.settings import Settings, read_settings


def test_a_container_s_defaults() -> None:
    assert read_settings({}) == Settings(
        spec=Path("/etc/sftjob/spec.json"), work=Path("/workspace"), grace_seconds=600, inputs={}
    )


def test_every_variable_is_read() -> None:
    environment = {
        Env.SPEC: "/a/spec.json",
        Env.WORK: "/w",
        Env.OWNER: "job-1",
        Env.POD_UID: "pod-1",
        Env.POD_INDEX: "3",
        Env.MASTER_ADDR: "job-0.gang",
        Env.MASTER_PORT: "4000",
        Env.GRACE_SECONDS: "90",
        Env.STORAGE_URI: "s3://bucket/runs",
        Env.CACHE: "/cache",
        Env.INPUTS: '{"ab": "/data/x"}',
        Env.DIE_WITH_PARENT: "1",
    }
    assert read_settings(environment) == Settings(
        spec=Path("/a/spec.json"),
        work=Path("/w"),
        owner="job-1",
        pod_uid="pod-1",
        index=3,
        master_addr="job-0.gang",
        master_port=4000,
        grace_seconds=90,
        storage_uri="s3://bucket/runs",
        cache=Path("/cache"),
        inputs={"ab": Path("/data/x")},
        die_with_parent=True,
    )


def test_arguments_beat_variables_and_the_work_folder_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read_settings({Env.SPEC: "/a", Env.WORK: "/b"}, spec=Path("c"), work=Path("d"))
    assert (settings.spec, settings.work) == (Path("c"), tmp_path / "d")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (Env.GRACE_SECONDS, "ten minutes"),
        (Env.GRACE_SECONDS, "-1"),
        (Env.GRACE_SECONDS, "nan"),
        (Env.POD_INDEX, "first"),
        (Env.MASTER_PORT, "http"),
        (Env.INPUTS, "{"),
        (Env.INPUTS, '["x"]'),
    ],
)
def test_a_wrong_variable_is_named(name: Env, text: str) -> None:
    with pytest.raises(SpecError, match=name):
        read_settings({name: text})
