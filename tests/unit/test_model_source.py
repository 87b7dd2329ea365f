import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from sftjob import model_source
from sftjob.contract import ExitCode, keys
from sftjob.errors import ConfigurationError, DiskFull, InputMissing, NotFound, SftjobError
from sftjob.inputs import hash_input
from sftjob.model_source import check_model_folder, fetch_config, fetch_model
from sftjob.spec import HubModel, LocalModel, ModelSource, PinnedModel, StoredModel
from sftjob.storage import FolderStore
from tests.hub_server import HubServer, Mode

REVISION = "0123456789abcdef0123456789abcdef01234567"
REPO = "owner/small"
SOURCE = HubModel(hub=REPO, revision=REVISION)
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


def safetensors(tensors: Mapping[str, list[int]]) -> bytes:
    """A file of fp32 zeros: eight bytes of header length, the header, the data."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors.items():
        start, end = end, end + 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(end)


WEIGHTS = safetensors({"embed": [4, 2], "head": [2, 4]})
MODEL: dict[str, bytes] = {
    "config.json": json.dumps(CONFIG).encode(),
    "generation_config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b'{"model_max_length": 64}',
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": WEIGHTS,
}
EXTRAS = {
    "README.md": b"# small",
    "modeling_small.py": b"raise SystemExit",
    "pytorch_model.bin": b"\x80\x04pickle",
    "original/consolidated.00.pth": b"\x80\x04pickle",
    "onnx/config.json": b"{}",
    "consolidated.safetensors": WEIGHTS,
}
SHARDS = {
    "model-00001-of-00002.safetensors": safetensors({"embed": [4, 2]}),
    "model-00002-of-00002.safetensors": safetensors({"head": [2, 4]}),
}
INDEX = {"weight_map": {"embed": "model-00001-of-00002.safetensors", "head": "model-00002-of-00002.safetensors"}}
SHARDED = {
    **{name: data for name, data in MODEL.items() if name != "model.safetensors"},
    **SHARDS,
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
}


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fetch(
    source: ModelSource, into: Path, *, store_root: FolderStore | None = None, inputs: Mapping[str, Path] | None = None
) -> Path:
    return fetch_model(source, into, store_root=store_root, inputs=inputs or {})


def failure(source: ModelSource, into: Path, what: str, *, store_root: FolderStore | None = None) -> SftjobError:
    """The error of fetching a whole model, or its config alone."""
    fetch_it = partial(fetch, source, into) if what == "model" else partial(fetch_config, source, inputs={})
    with pytest.raises(SftjobError) as caught:
        fetch_it(store_root=store_root)
    return caught.value


def one_line(error: SftjobError) -> str:
    text = str(error)
    assert "\n" not in text
    return text


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    import huggingface_hub  # noqa: PLC0415 - half a second that the other tests need not wait
    from huggingface_hub import constants  # noqa: PLC0415

    class Clock:
        """Retries without their pauses."""

        @staticmethod
        def sleep(_seconds: float) -> None:
            return None

    with HubServer(REPO, REVISION, MODEL | EXTRAS) as server:
        monkeypatch.setattr("huggingface_hub.utils._http.time", Clock)
        monkeypatch.setattr("huggingface_hub.file_download.time", Clock)
        # Read from HF_ENDPOINT, HF_HOME and so on at import; a test in a process of its own covers that.
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield server
        huggingface_hub.close_session()


class TestHub:
    def test_takes_the_model_and_nothing_else(self, hub: HubServer, tmp_path: Path) -> None:
        folder = fetch(SOURCE, tmp_path / "work" / "model")

        assert folder == tmp_path / "work" / "model"
        assert content(folder) == MODEL
        assert sorted(hub.downloads) == sorted(MODEL)

    def test_takes_the_shards_that_the_index_names(self, hub: HubServer, tmp_path: Path) -> None:
        hub.files = SHARDED | EXTRAS | {"model-00003-of-00002.safetensors": WEIGHTS}

        assert content(fetch(SOURCE, tmp_path / "model")) == SHARDED

    def test_is_kept_in_the_cache_that_pods_share(self, hub: HubServer, tmp_path: Path) -> None:
        folders = [
            fetch_model(SOURCE, tmp_path / pod, store_root=None, inputs={}, cache=tmp_path / "shared")
            for pod in ("a", "b")
        ]

        assert [content(folder) for folder in folders] == [MODEL] * 2
        assert sorted(hub.downloads) == sorted(MODEL)
        assert (folders[1] / "config.json").resolve().is_relative_to(tmp_path / "shared" / "hub")
        assert not (tmp_path / "cache").exists()

    def test_does_not_download_twice(self, hub: HubServer, tmp_path: Path) -> None:
        fetch(SOURCE, tmp_path / "model")
        fetch(SOURCE, tmp_path / "model")

        assert sorted(hub.downloads) == sorted(MODEL)

    def test_what_the_cache_holds_besides_is_not_shown(self, hub: HubServer, tmp_path: Path) -> None:
        import huggingface_hub  # noqa: PLC0415 - see the fixture

        huggingface_hub.snapshot_download(REPO, revision=REVISION, endpoint=hub.endpoint)

        assert content(fetch(SOURCE, tmp_path / "model")) == MODEL

    def test_a_whole_cache_needs_no_network(
        self, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fetch(SOURCE, tmp_path / "model")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        hub.requests.clear()

        assert fetch_config(SOURCE, store_root=None, inputs={}) == CONFIG
        assert content(fetch(SOURCE, tmp_path / "again")) == MODEL
        assert hub.requests == []

    def test_config_alone(self, hub: HubServer) -> None:
        assert fetch_config(SOURCE, store_root=None, inputs={}) == CONFIG
        assert hub.downloads == ["config.json"]

    def test_progress_tells_of_large_files(
        self, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sftjob.inputs._LINE_EVERY_BYTES", 100)
        lines: list[str] = []

        fetch_model(SOURCE, tmp_path / "model", store_root=None, inputs={}, progress=lines.append)

        assert lines[0] == f"fetching {REPO} at 01234567 from {hub.endpoint}"
        assert any(line.startswith(f"fetching {REPO}: 0.0 of 0.0 GiB") for line in lines[1:])

    def test_environment_of_the_hub_library_is_honoured(self, hub: HubServer, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from sftjob.model_source import fetch_model; "
            "from sftjob.spec import HubModel; "
            f"source = HubModel(hub={REPO!r}, revision={REVISION!r}); "
            "fetch_model(source, Path(sys.argv[1]), store_root=None, inputs={})"
        )
        environment = os.environ | {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": "hf_of_mine",
        }

        subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], env=environment, check=True, timeout=60)

        assert content(tmp_path / "model") == MODEL
        assert (tmp_path / "home" / "hub").is_dir()
        assert hub.tokens == {"Bearer hf_of_mine"}


class Refusal(NamedTuple):
    mode: Mode
    code: ExitCode
    field: str
    words: tuple[str, ...]
    """All of them stand in the message; ENDPOINT is the server's."""


REFUSALS = [
    Refusal("unauthorised", ExitCode.CREDENTIALS, "model.hub", ("private or does not exist", "set HF_TOKEN or")),
    Refusal("forbidden", ExitCode.CREDENTIALS, "model.hub", ("(403)", "HF_TOKEN")),
    Refusal("gated", ExitCode.CREDENTIALS, "model.hub", ("is gated", f"at ENDPOINT/{REPO}, then set HF_TOKEN")),
    Refusal("no_repo", ExitCode.INPUT, "model.hub", (f"no repository {REPO} at ENDPOINT", "check the id")),
    Refusal("no_revision", ExitCode.INPUT, "model.revision", (REVISION, f"`git ls-remote ENDPOINT/{REPO} HEAD`")),
    Refusal("broken", ExitCode.INPUT, "model.hub", ("ENDPOINT answers 503", "try again later", "`model.path`")),
    Refusal("limited", ExitCode.INPUT, "model.hub", ("ENDPOINT limits its requests (429)", "try again later")),
    Refusal("cut_off", ExitCode.INPUT, "model.hub", (f"cannot fetch {REPO} from ENDPOINT", "check the network")),
    Refusal("not_a_hub", ExitCode.INPUT, "model.hub", ("X-Repo-Commit", "the proxy and HF_")),
]


class TestHubRefusals:
    @pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.mode)
    @pytest.mark.parametrize("what", ["model", "config"])
    def test_is_one_line_with_its_repair(
        self, hub: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], what: str, refusal: Refusal
    ) -> None:
        hub.mode = refusal.mode

        error = failure(SOURCE, tmp_path / "model", what)

        line = one_line(error)
        assert error.exit_code == refusal.code
        assert error.problems[0].field == refusal.field
        for word in refusal.words:
            assert word.replace("ENDPOINT", hub.endpoint) in line
        assert not (tmp_path / "model").exists()
        assert not list(tmp_path.glob("*.partial"))
        assert capfd.readouterr() == ("", "")

    def test_a_token_that_is_refused_is_told_from_none(
        self, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.mode = "unauthorised"
        monkeypatch.setenv("HF_TOKEN", "hf_expired")

        with pytest.raises(SftjobError, match=r"refuses the token for owner/small \(401\)") as caught:
            fetch(SOURCE, tmp_path / "model")
        assert "hf_expired" not in str(caught.value)

    def test_unreachable(self, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")  # a port nobody may take

        with pytest.raises(InputMissing) as caught:
            fetch(SOURCE, tmp_path / "model")
        line = one_line(caught.value)
        assert "cannot fetch owner/small from http://127.0.0.1:1 (ConnectError" in line
        assert "a local folder works as `model.path`" in line

    def test_offline(self, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

        with pytest.raises(InputMissing) as caught:
            fetch(SOURCE, tmp_path / "model")
        assert "unset HF_HUB_OFFLINE" in one_line(caught.value)
        assert str(tmp_path / "cache") in one_line(caught.value)

    def test_offline_with_half_a_cache(self, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fetch_config(SOURCE, store_root=None, inputs={})
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

        with pytest.raises(InputMissing) as caught:
            fetch(SOURCE, tmp_path / "model")
        assert "unset HF_HUB_OFFLINE" in str(caught.value)

    def test_not_an_id(self, hub: HubServer, tmp_path: Path) -> None:
        with pytest.raises(SftjobError, match=r"owner/sm--all is not the id of a repository") as caught:
            fetch(HubModel(hub="owner/sm--all", revision=REVISION), tmp_path / "model")
        assert caught.value.exit_code == ExitCode.SPEC

    def test_without_config(self, hub: HubServer) -> None:
        del hub.files["config.json"]

        with pytest.raises(InputMissing, match=r"no config\.json in owner/small"):
            fetch_config(SOURCE, store_root=None, inputs={})

    def test_only_pickles(self, hub: HubServer, tmp_path: Path) -> None:
        del hub.files["model.safetensors"]

        with pytest.raises(InputMissing) as caught:
            fetch(SOURCE, tmp_path / "model")
        assert "only as pickles" in one_line(caught.value)
        assert "save_pretrained" in one_line(caught.value)
        assert "pytorch_model.bin" not in hub.downloads

    def test_disk_full(self, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("sftjob.hub.snapshot_download", full)

        with pytest.raises(DiskFull, match="set HF_HOME"):
            fetch(SOURCE, tmp_path / "model")

    def test_cache_that_cannot_be_written(
        self, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("sftjob.hub.snapshot_download", refused)

        with pytest.raises(ConfigurationError, match="set HF_HOME"):
            fetch(SOURCE, tmp_path / "model")


class TestLocal:
    def test_is_used_where_it_is(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "mine", MODEL)

        assert fetch(LocalModel(path=str(folder)), tmp_path / "model") == folder
        assert not (tmp_path / "model").exists()
        assert fetch_config(LocalModel(path=str(folder)), store_root=None, inputs={}) == CONFIG

    @pytest.mark.parametrize("name", ["absent", "file"])
    @pytest.mark.parametrize("what", ["model", "config"])
    def test_no_folder(self, tmp_path: Path, what: str, name: str) -> None:
        (tmp_path / "file").write_text("")

        error = failure(LocalModel(path=str(tmp_path / name)), tmp_path / "model", what)

        assert error.exit_code == ExitCode.INPUT
        assert re.match(f"model.path: .*/{name} (does not exist|is a file); ", one_line(error))

    @pytest.mark.parametrize("what", ["model", "config"])
    def test_unreadable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
        folder = write(tmp_path / "mine", MODEL)

        def refused(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "read_bytes", refused)

        error = failure(LocalModel(path=str(folder)), tmp_path / "model", what)

        assert error.exit_code == ExitCode.CREDENTIALS
        assert str(error) == f"model.path: {folder}/config.json may not be read; change its permissions"


class TestStored:
    URI = "s3://bucket/models/small"

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
        store = FolderStore(write(tmp_path / "store", SHARDED | EXTRAS))

        def opened(uri: str, *, endpoint_url: str | None, region: str | None) -> FolderStore:
            assert (uri, endpoint_url, region) == (self.URI, None, None)
            return store

        monkeypatch.setattr(model_source, "open_store", opened)
        return store

    def test_takes_the_model_and_nothing_else(self, store: FolderStore, tmp_path: Path) -> None:
        into = write(tmp_path / "model", {"left_by_another_model.safetensors": WEIGHTS})

        assert content(fetch(StoredModel(uri=self.URI), into)) == SHARDED
        assert fetch_config(StoredModel(uri=self.URI), store_root=None, inputs={}) == CONFIG

    @pytest.mark.parametrize(
        ("gone", "reason"),
        [
            ("model-00002-of-00002.safetensors", "model-00002-of-00002.safetensors is missing"),
            ("model.safetensors.index.json", "only as pickles"),
            ("config.json", "no config.json"),
            ("tokenizer.json", "no tokenizer.json"),
        ],
    )
    def test_incomplete(self, store: FolderStore, tmp_path: Path, gone: str, reason: str) -> None:
        store.delete(gone)

        with pytest.raises(InputMissing, match=f"^model.uri: .*{reason}"):
            fetch(StoredModel(uri=self.URI), tmp_path / "model")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]

    @pytest.mark.parametrize("what", ["model", "config"])
    def test_nothing_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
        monkeypatch.setattr(model_source, "open_store", lambda *_, **__: FolderStore(tmp_path / "empty"))

        error = failure(StoredModel(uri=self.URI), tmp_path / "model", what)

        assert error.exit_code == ExitCode.INPUT
        assert re.match(r"model\.uri: no .*; check the URI", one_line(error))

    def test_no_place_to_put_it(self, store: FolderStore, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")

        with pytest.raises(SftjobError, match="Not a directory"):
            fetch(StoredModel(uri=self.URI), tmp_path / "file" / "model")

    def test_no_bucket(self, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_bucket(_self: FolderStore, _prefix: str = "") -> None:
            raise NotFound("no such bucket", file="s3://bucket")

        monkeypatch.setattr(FolderStore, "list", no_bucket)

        with pytest.raises(InputMissing, match=r"^model\.uri: no files under"):
            fetch(StoredModel(uri=self.URI), tmp_path / "model")


class TestPinned:
    def test_found_on_this_machine(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "mine", MODEL)
        source = PinnedModel(sha256=hash_input(folder), name="mine")

        assert fetch(source, tmp_path / "model", inputs={source.sha256: folder}) == folder
        assert fetch_config(source, store_root=None, inputs={source.sha256: folder}) == CONFIG

    def test_changed_since(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "mine", MODEL)
        source = PinnedModel(sha256=hash_input(folder), name="mine")
        (folder / "chat_template.jinja").write_text("{{ other }}")

        with pytest.raises(InputMissing, match=r"^model: mine .* has changed since the run began"):
            fetch(source, tmp_path / "model", inputs={source.sha256: folder})

    def test_incomplete_from_the_start(self, tmp_path: Path) -> None:
        folder = write(tmp_path / "mine", {name: data for name, data in MODEL.items() if name != "tokenizer.json"})
        source = PinnedModel(sha256=hash_input(folder), name="mine")

        with pytest.raises(InputMissing, match=r"^model: no tokenizer\.json in mine"):
            fetch(source, tmp_path / "model", inputs={source.sha256: folder})

    def test_found_in_the_store(self, tmp_path: Path) -> None:
        source = PinnedModel(sha256=hash_input(write(tmp_path / "mine", SHARDED)), name="mine")
        root = FolderStore(write(tmp_path / "root", {keys.input(source.sha256, n): d for n, d in SHARDED.items()}))

        assert content(fetch(source, tmp_path / "model", store_root=root)) == SHARDED
        assert fetch_config(source, store_root=root, inputs={}) == CONFIG

    def test_other_content_in_the_store(self, tmp_path: Path) -> None:
        source = PinnedModel(sha256="0" * 64, name="mine")
        root = FolderStore(write(tmp_path / "root", {keys.input(source.sha256, n): d for n, d in MODEL.items()}))

        with pytest.raises(InputMissing, match=r"is not mine as it was pinned.*sftjob stage SPEC --verify"):
            fetch(source, tmp_path / "model", store_root=root)
        assert not (tmp_path / "model").exists()

    @pytest.mark.parametrize("what", ["model", "config"])
    def test_never_staged(self, tmp_path: Path, what: str) -> None:
        root = FolderStore(tmp_path / "root")

        error = failure(PinnedModel(sha256="0" * 64, name="mine"), tmp_path / "model", what, store_root=root)

        assert error.exit_code == ExitCode.INPUT
        assert re.fullmatch(r"model: no .*/inputs/0{64}; submit the job again to stage it", one_line(error))

    def test_nowhere(self, tmp_path: Path) -> None:
        with pytest.raises(InputMissing, match=r"^model: mine is pinned .* neither it nor a store"):
            fetch(PinnedModel(sha256="0" * 64, name="mine"), tmp_path / "model")


class TestCheckModelFolder:
    @pytest.mark.parametrize("files", [MODEL, SHARDED], ids=["one file", "shards"])
    def test_accepts(self, tmp_path: Path, files: dict[str, bytes]) -> None:
        check_model_folder(write(tmp_path, files), name="mine")

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"model.safetensors": None}, r"no \*\.safetensors in mine .*save_pretrained"),
            ({"model.safetensors": None, "pytorch_model.bin": b""}, r"only as pickles \(\*\.bin\), which can run code"),
            ({"model.safetensors": WEIGHTS[:-1]}, rf"is cut off: {len(WEIGHTS) - 1} of {len(WEIGHTS)} bytes"),
            ({"model.safetensors": WEIGHTS + b"\0"}, "is longer than its header says"),
            ({"model.safetensors": WEIGHTS[:20]}, r"is cut off inside its header \(20 bytes\)"),
            ({"model.safetensors": b""}, "mine/model.safetensors is not a safetensors file"),
            ({"model.safetensors": b"\x80\x04\x95" + b"\xff" * 40}, "is not a safetensors file"),
            ({"model.safetensors": struct.pack("<Q", 2) + b"[]"}, "is not a safetensors file"),
            ({"model.safetensors": struct.pack("<Q", 8) + b'{"a": 1}'}, "is not a safetensors file"),
            ({"model.safetensors": b"version https://git-lfs.github.com/spec/v1\n"}, "git lfs pull"),
            ({"config.json": None}, "no config.json in mine; name a whole model folder"),
            ({"config.json": None, "adapter_config.json": b"{}"}, "this is an adapter"),
            ({"config.json": b"{"}, "mine/config.json is not JSON"),
            ({"config.json": b"\xff"}, "mine/config.json is not JSON"),
            ({"config.json": b"[]"}, "mine/config.json is not a JSON object"),
            ({"tokenizer.json": None}, "no tokenizer.json in mine"),
            ({"tokenizer_config.json": b"no"}, "mine/tokenizer_config.json is not JSON"),
        ],
    )
    def test_refuses(self, tmp_path: Path, change: dict[str, bytes | None], reason: str) -> None:
        files = {name: data for name, data in {**MODEL, **change}.items() if data is not None}

        with pytest.raises(InputMissing, match=reason) as caught:
            check_model_folder(write(tmp_path, files), name="mine")
        assert one_line(caught.value).count(";") == 1

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"model-00002-of-00002.safetensors": None}, "model-00002-of-00002.safetensors is missing"),
            (
                {"model-00002-of-00002.safetensors": safetensors({"other": [2, 4]})},
                "lacks 1 tensors that .* names, head",
            ),
            ({"model.safetensors.index.json": b"{"}, "index.json is not JSON"),
            ({"model.safetensors.index.json": b"{}"}, "has no weight_map"),
            ({"model.safetensors.index.json": b'{"weight_map": {"a": "../x.safetensors"}}'}, "not a .* of the folder"),
            ({"model.safetensors.index.json": b'{"weight_map": {"a": "pytorch_model.bin"}}'}, "not a .* of the folder"),
        ],
    )
    def test_refuses_shards(self, tmp_path: Path, change: dict[str, bytes | None], reason: str) -> None:
        files = {name: data for name, data in {**SHARDED, **change}.items() if data is not None}

        with pytest.raises(InputMissing, match=reason):
            check_model_folder(write(tmp_path, files), name="mine")

    def test_names_everything_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(InputMissing) as caught:
            check_model_folder(tmp_path, name="mine")
        assert [problem.reason.split(" in ")[0] for problem in caught.value.problems] == [
            "no config.json",
            "no tokenizer.json",
            "no *.safetensors",
        ]

    @pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
    def test_refuses_custom_code(self, tmp_path: Path, file: str) -> None:
        code = json.dumps(CONFIG | {"auto_map": {"AutoConfig": "configuration_mine.Config"}}).encode()

        with pytest.raises(ConfigurationError, match=rf"mine/{file} asks for Python code of its own \(auto_map\)"):
            check_model_folder(write(tmp_path, {**MODEL, file: code}), name="mine")

    def test_custom_code_is_seen_before_weights_are_fetched(self, tmp_path: Path) -> None:
        code = json.dumps({"auto_map": {"AutoConfig": "configuration_mine.Config"}}).encode()
        write(tmp_path, {"config.json": code})

        with pytest.raises(ConfigurationError, match="auto_map"):
            fetch_config(LocalModel(path=str(tmp_path)), store_root=None, inputs={})


def test_neither_torch_nor_the_hub_library_is_imported() -> None:
    code = (
        "import sys, sftjob.model_source, sftjob.inputs; "
        "print([n for n in ('torch', 'transformers', 'huggingface_hub', 'boto3', 'datasets') if n in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == "[]\n"
