"""Staging to a real S3 server: once, by several at a time, over a broken line, and from another address than pods."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sftjob.app.stage import pin_for_cluster, stage, stage_inputs
from sftjob.app.stores import open_root
from sftjob.contract import keys
from sftjob.errors import Denied, InputMissing, NotFound, Unavailable
from sftjob.inputs import fetch_data
from sftjob.model_source import fetch_model
from sftjob.records import StagedInput, read_record
from sftjob.spec import LoadedSpec, PinnedData, PinnedModel, Profile, load_spec
from sftjob.storage.s3 import S3Store
from tests.s3_server import S3Server

pytestmark = pytest.mark.storage
ON_ONE = pytest.mark.parametrize("each_s3_server", ["moto"], indirect=True)
"""What says nothing about a server is tried on one."""
PART_BYTES = 5 * 2**20
ROWS = json.dumps({"prompt": "a", "completion": "b"}) + "\n"
HEADER = b'{"a":{"dtype":"U8","shape":[11000000],"data_offsets":[0,11000000]}}'
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(11_000_000)
"""More than two parts."""


@pytest.fixture
def loaded(tmp_path: Path, each_s3_server: S3Server) -> LoadedSpec:
    """A spec with a model and rows of this machine, whose store is a new bucket."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (model / "tokenizer.json").write_text("{}")
    (model / "model.safetensors").write_bytes(WEIGHTS)
    (tmp_path / "rows.jsonl").write_text(ROWS)
    (tmp_path / "job.yaml").write_text(
        "name: job\nmodel: {path: model}\ndata: {train: [{path: rows.jsonl}]}\nmethod: {type: lora}\n"
        f"storage: {{uri: 's3://{each_s3_server.bucket}/team/runs'}}\n"
    )
    return load_spec(tmp_path / "job.yaml")


@pytest.fixture
def store(each_s3_server: S3Server) -> S3Store:
    """At `<storage.uri>`."""
    return S3Store.open(each_s3_server.bucket, "team/runs", part_bytes=PART_BYTES)


def sources(loaded: LoadedSpec) -> tuple[PinnedModel, PinnedData]:
    spec = pin_for_cluster(loaded).spec
    (rows,) = spec.data.train
    assert isinstance(spec.model, PinnedModel)
    assert isinstance(rows, PinnedData)
    return spec.model, rows


class Counting(S3Store):
    """Notes which files are sent; refuses the one that is called `fails`."""

    sent: list[str]
    fails = ""

    def put_file(self, key: str, path: Path, *, sha256: str, on_sent: Any = None) -> None:
        if self.fails and key.endswith(self.fails):
            raise Unavailable("the line is cut")
        super().put_file(key, path, sha256=sha256, on_sent=on_sent)
        self.sent.append(path.name)


@pytest.fixture
def counting(each_s3_server: S3Server) -> Counting:
    counting = Counting(S3Store.open(each_s3_server.bucket, part_bytes=PART_BYTES)._connection, "team/runs")
    counting.sent = []
    return counting


def test_pods_get_back_what_was_staged(loaded: LoadedSpec, store: S3Store, tmp_path: Path) -> None:
    stage_inputs(pin_for_cluster(loaded), store)
    model, rows = sources(loaded)

    found = fetch_model(model, tmp_path / "pod" / "model", store_root=store, inputs={})
    path, _ = fetch_data(rows, tmp_path / "pod", store_root=store, inputs={})

    assert (found / "model.safetensors").read_bytes() == WEIGHTS
    assert path.read_text() == ROWS


def test_a_large_file_tells_how_far_it_is(store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(WEIGHTS)
    sent: list[int] = []

    store.put_file("weights", tmp_path / "weights", sha256=hashlib.sha256(WEIGHTS).hexdigest(), on_sent=sent.append)

    assert sent == [PART_BYTES, PART_BYTES, len(WEIGHTS) - 2 * PART_BYTES]


def test_it_is_sent_once(loaded: LoadedSpec, counting: Counting) -> None:
    assert stage_inputs(pin_for_cluster(loaded), counting) > len(WEIGHTS)
    assert stage_inputs(pin_for_cluster(loaded), counting) == 0
    assert sorted(counting.sent) == ["config.json", "model.safetensors", "rows.jsonl", "tokenizer.json"]


def test_after_a_cut_line_only_the_rest_is_sent(loaded: LoadedSpec, counting: Counting) -> None:
    counting.fails = "tokenizer.json"
    with pytest.raises(Unavailable):
        stage_inputs(pin_for_cluster(loaded), counting)
    model, _ = sources(loaded)
    with pytest.raises(NotFound):
        counting.get_bytes(keys.input_manifest(model.sha256))
    assert sorted(counting.sent) == ["config.json", "model.safetensors"]
    counting.sent.clear()
    counting.fails = ""

    stage_inputs(pin_for_cluster(loaded), counting)

    # The store itself keeps the hash of what is there.
    assert sorted(counting.sent) == ["rows.jsonl", "tokenizer.json"]


def test_another_content_of_the_same_size_is_sent_again(loaded: LoadedSpec, counting: Counting) -> None:
    model, _ = sources(loaded)
    key = keys.input(model.sha256, "tokenizer.json")
    counting.put_bytes(key, b"[]")

    stage_inputs(pin_for_cluster(loaded), counting)

    assert counting.get_bytes(key) == b"{}"


def test_several_may_stage_the_same_at_once(loaded: LoadedSpec, store: S3Store, tmp_path: Path) -> None:
    job = pin_for_cluster(loaded)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: stage_inputs(job, store), range(4)))

    model, _ = sources(loaded)
    key = keys.input_manifest(model.sha256)
    manifest = read_record(StagedInput, store.get_bytes(key), key)
    assert [file.path for file in manifest.files] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert fetch_model(model, tmp_path / "pod", store_root=store, inputs={}).is_dir()


def test_damage_is_found_by_pods_and_repaired_by_verify(loaded: LoadedSpec, store: S3Store, tmp_path: Path) -> None:
    job = pin_for_cluster(loaded)
    stage_inputs(job, store)
    model, _ = sources(loaded)
    store.put_bytes(keys.input(model.sha256, "tokenizer.json"), b"[]")
    with pytest.raises(InputMissing, match="sftjob stage SPEC --verify"):
        fetch_model(model, tmp_path / "pod", store_root=store, inputs={})

    assert stage_inputs(job, store, verify=True) == 2

    assert fetch_model(model, tmp_path / "pod", store_root=store, inputs={}).is_dir()


@ON_ONE
class TestAddress:
    """Pods reach the store under `in-cluster`, which this machine does not know."""

    INSIDE = "http://127.0.0.1:9"

    @pytest.fixture(autouse=True)
    def _no_variable(self, each_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ENDPOINT_URL_S3")

    def profile(self, **storage: str) -> Profile:
        return Profile.model_validate({"storage": {"endpoint_url": self.INSIDE, **storage}})

    def test_the_profile_has_one_for_people(self, loaded: LoadedSpec, each_s3_server: S3Server) -> None:
        profile = self.profile(external_endpoint_url=each_s3_server.endpoint_url)

        assert "sha256: " in stage(loaded, profile)

    def test_the_command_line_goes_first(self, loaded: LoadedSpec, each_s3_server: S3Server) -> None:
        profile = self.profile(external_endpoint_url="http://127.0.0.1:10")

        assert "sha256: " in stage(loaded, profile, endpoint_url=each_s3_server.endpoint_url)

    def test_that_of_the_profile_is_not_for_a_store_of_the_specs_own(
        self, loaded: LoadedSpec, each_s3_server: S3Server
    ) -> None:
        storage = loaded.spec.storage.model_copy(update={"endpoint_url": each_s3_server.endpoint_url})
        spec = loaded.spec.model_copy(update={"storage": storage})

        assert open_root(spec, self.profile(external_endpoint_url="http://127.0.0.1:10"))

    def test_one_that_does_not_answer_says_what_to_do(
        self, loaded: LoadedSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sftjob.app import stores  # noqa: PLC0415
        from sftjob.storage.retry import Patience  # noqa: PLC0415

        monkeypatch.setattr(stores, "_FIRST_ANSWER", Patience(deadline_seconds=0))

        with pytest.raises(
            Unavailable, match=r"127\.0\.0\.1:9.*--endpoint-url URL, or `storage\.external_endpoint_url`"
        ):
            stage(loaded, self.profile())


@pytest.mark.parametrize("each_s3_server", ["versitygw"], indirect=True)  # moto believes every credential
def test_a_wrong_key_is_told(loaded: LoadedSpec, each_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")

    with pytest.raises(Denied, match="check AWS_SECRET_ACCESS_KEY"):
        stage(loaded, Profile())


@ON_ONE
def test_the_command_writes_a_spec_that_renders(loaded: LoadedSpec, each_s3_server: S3Server, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "no-config")}
    program = shutil.which("sftjob", path=str(Path(sys.executable).parent))
    assert program is not None

    def sftjob(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    refused = sftjob("render", "job.yaml")
    staged = sftjob("stage", "job.yaml", "-o", "pinned.yaml")
    rendered = sftjob("render", "pinned.yaml")

    assert refused.returncode == 64
    assert "sftjob stage SPEC -o pinned.yaml" in refused.stderr
    assert staged.returncode == 0, staged.stderr
    assert staged.stdout == ""
    assert rendered.returncode == 0, rendered.stderr
    assert sources(loaded)[0].sha256 in rendered.stdout
