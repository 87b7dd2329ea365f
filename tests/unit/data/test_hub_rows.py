"""Data sets of the hub by way of `datasets`, against a stand-in on loopback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest

from sftjob.contract import ExitCode
from sftjob.data.hub_rows import hub_name, scan_hub
from sftjob.data.raw_rows import RawRow
from sftjob.errors import ConfigurationError, DataError, DiskFull, InputMissing, Problem, SftjobError, SpecError
from sftjob.spec.data import HubData
from tests.hub_server import HubServer, Mode
from tests.unit.data.test_sources import json_lines, parquet

# Nothing is trained, but `datasets` makes this too slow for the fast ring.
pytestmark = pytest.mark.train

REVISION = "0123456789abcdef0123456789abcdef01234567"
LATER = "89abcdef0123456789abcdef0123456789abcdef"
REPO = "owner/small"
SECRET = "xyzzy"
CHATS: list[dict[str, object]] = [
    {"messages": [{"role": "user", "content": SECRET}], "more": {"a": 1}},
    {"messages": [{"role": "user", "content": "b"}, {"role": "assistant"}], "more": [1]},
]
HELD_OUT: list[dict[str, object]] = [{"prompt": "a", "completion": "b"}]
PAIRS: list[dict[str, object]] = [
    {"prompt": f"{number}", "completion": None if number % 2 else "a"} for number in range(5)
]
README = """---
license: apache-2.0
configs:
- config_name: chats
  default: true
  data_files:
  - split: train
    path: data/train.jsonl
- config_name: pairs
  data_files:
  - split: train
    path: pairs/*.jsonl
  - split: test
    path: held-out.jsonl
---
# small
"""
FILES = {
    "README.md": README.encode(),
    "data/train.jsonl": json_lines(CHATS),
    "pairs/0.jsonl": json_lines(PAIRS[:3]),
    "pairs/1.jsonl": json_lines(PAIRS[3:]),
    "held-out.jsonl": json_lines(HELD_OUT),
    "other.bin": b"\x80\x04pickle",
}


def source(**more: str) -> HubData:
    return HubData.model_validate({"hub": REPO, "revision": REVISION, **more})


def scan(data: HubData, lines: list[str] | None = None) -> list[RawRow]:
    return list(scan_hub(data, progress=[].append if lines is None else lines.append))


def values(data: HubData) -> list[object]:
    rows = scan(data)
    assert [row.line for row in rows] == list(range(1, len(rows) + 1))
    return [row.value for row in rows]


def failure(data: HubData) -> SftjobError:
    with pytest.raises(SftjobError) as caught:
        scan(data)
    text = str(caught.value)
    assert "\n" not in text
    assert SECRET not in text
    return caught.value


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    import datasets.config  # noqa: PLC0415 - two seconds that the other tests need not wait
    import huggingface_hub  # noqa: PLC0415
    from huggingface_hub import constants  # noqa: PLC0415

    class Clock:
        """Retries without their pauses."""

        @staticmethod
        def sleep(_seconds: float) -> None:
            return None

    with HubServer(REPO, REVISION, FILES, kind="datasets") as server:
        monkeypatch.setattr("huggingface_hub.utils._http.time", Clock)
        monkeypatch.setattr("huggingface_hub.file_download.time", Clock)
        # Read from HF_ENDPOINT, HF_HOME and so on at import; a test in a process of its own covers that.
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", server.endpoint)
        template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        for name in ("HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH"):
            monkeypatch.setattr(constants, name, str(tmp_path / name))
        for name in ("HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH"):
            monkeypatch.setattr(datasets.config, name, tmp_path / name)
        for module in (constants, datasets.config):
            monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
        yield server
        huggingface_hub.HfFileSystem.clear_instance_cache()
        huggingface_hub.close_session()


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("huggingface_hub.constants", "datasets.config"):
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", True)


class TestRows:
    def test_configs_and_splits(self, hub: HubServer, capfd: pytest.CaptureFixture[str]) -> None:
        lines: list[str] = []

        rows = scan(source(), lines)

        assert [row.value for row in rows] == CHATS
        assert lines == [f"fetching {REPO} at 01234567 from {hub.endpoint}"]
        assert sorted(hub.downloads) == ["README.md", "train.jsonl"]
        assert values(source(config="pairs")) == PAIRS
        assert values(source(config="pairs", split="test")) == HELD_OUT
        assert capfd.readouterr() == ("", "")

    def test_what_is_cached_needs_no_network(self, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        chats, pairs = scan(source()), scan(source(config="pairs"))
        hub.requests.clear()

        assert scan(source()) == chats
        assert scan(source(config="pairs")) == pairs
        go_offline(monkeypatch)
        assert scan(source()) == chats
        assert scan(source(config="pairs")) == pairs
        assert hub.requests == []

    def test_another_revision_in_the_cache_is_not_taken(self, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        scan(source())

        assert str(failure(source(revision=LATER))).startswith(f"hub: no repository {REPO} at")
        go_offline(monkeypatch)
        assert "HF_HUB_OFFLINE=1 forbids fetching" in str(failure(source(revision=LATER)))
        assert "HF_HUB_OFFLINE=1 forbids fetching" in str(failure(source(config="pairs")))

    def test_the_default_config_is_not_guessed(self, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """What lies in the cache alone may be another config than the one that is meant."""
        scan(source(config="pairs"))
        go_offline(monkeypatch)

        assert "HF_HUB_OFFLINE=1 forbids fetching" in str(failure(source()))

    def test_a_folder_of_that_name_is_not_meant(
        self, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / REPO).mkdir(parents=True)
        (tmp_path / REPO / "train.jsonl").write_text('{"wrong": 1}\n')
        monkeypatch.chdir(tmp_path)

        assert values(source()) == CHATS

    def test_without_a_card(self, hub: HubServer) -> None:
        hub.files = {"train.jsonl": json_lines(CHATS)}

        assert values(source()) == CHATS

    def test_parquet(self, hub: HubServer) -> None:
        hub.files = {"data/train-0.parquet": parquet(PAIRS[:3]), "data/train-1.parquet": parquet(PAIRS[3:])}

        assert values(source()) == PAIRS

    def test_an_empty_split(self, hub: HubServer) -> None:
        hub.files = {"train.csv": b"a,b\n"}

        (row,) = scan(source())

        assert row.fatal
        assert str(row.value) == f"{REPO}@01234567/train: no rows; the split is empty"

    def test_pictures(self, hub: HubServer) -> None:
        hub.files = {
            "train.parquet": parquet(pa.table({"image": [{"bytes": b"xyzzy", "path": SECRET}], "text": ["a"]}))
        }

        (row,) = scan(source())

        assert isinstance(row.value, Problem)
        assert str(row.value) == (
            f"{REPO}@01234567/train: image: holds bytes (an image or sound?), not text; keep columns of text alone"
        )

    def test_large_files_are_told(self, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sftjob.inputs._LINE_EVERY_BYTES", 10)
        lines: list[str] = []

        scan(source(), lines)

        assert any(line.startswith(f"fetching {REPO}: 0.0 of 0.0 GiB") for line in lines[1:])

    def test_nothing_but_the_hub_is_asked(self, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """`datasets` counts downloads at another host, which a closed network answers after seconds."""
        asked: list[object] = []
        monkeypatch.setattr("datasets.load.get_session", lambda: asked.append(1))

        scan(source())

        assert asked == []

    def test_environment_of_the_libraries_is_honoured(self, hub: HubServer, tmp_path: Path) -> None:
        code = (
            "from sftjob.data.hub_rows import scan_hub; from sftjob.spec.data import HubData; import json; "
            f"rows = scan_hub(HubData(hub={REPO!r}, revision={REVISION!r}), progress=lambda line: None); "
            "print(json.dumps([row.value for row in rows]))"
        )
        home = tmp_path / "home"
        environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_TOKEN": "hf_of_mine"}

        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
        )

        assert json.loads(done.stdout) == CHATS
        assert done.stderr == ""
        assert {path.name for path in home.iterdir()} >= {"hub", "datasets"}
        assert hub.tokens == {"Bearer hf_of_mine"}


class Refusal(NamedTuple):
    mode: Mode
    code: ExitCode
    field: str
    words: tuple[str, ...]
    """All of them stand in the message; ENDPOINT is the server's."""


REFUSALS = [
    Refusal("unauthorised", ExitCode.CREDENTIALS, "hub", ("private or does not exist", "set HF_TOKEN or")),
    Refusal("forbidden", ExitCode.CREDENTIALS, "hub", ("(403)", "HF_TOKEN")),
    Refusal("gated", ExitCode.CREDENTIALS, "hub", ("is gated", f"at ENDPOINT/datasets/{REPO}, then set HF_TOKEN")),
    Refusal("no_repo", ExitCode.INPUT, "hub", (f"no repository {REPO} at ENDPOINT", "check the id")),
    Refusal("no_revision", ExitCode.INPUT, "revision", (REVISION, f"`git ls-remote ENDPOINT/datasets/{REPO} HEAD`")),
    Refusal(
        "broken", ExitCode.INPUT, "hub", ("ENDPOINT answers 503", "try again later", "a local file works as `path`")
    ),
    Refusal("limited", ExitCode.INPUT, "hub", ("ENDPOINT limits its requests (429)", "try again later")),
    Refusal("cut_off", ExitCode.INPUT, "hub", (f"cannot fetch {REPO} from ENDPOINT", "check the network")),
]


class TestRefusals:
    @pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.mode)
    def test_is_one_line_with_its_repair(
        self, hub: HubServer, capfd: pytest.CaptureFixture[str], refusal: Refusal
    ) -> None:
        hub.mode = refusal.mode

        error = failure(source())

        assert error.exit_code == refusal.code
        assert error.problems[0].field == refusal.field
        for word in refusal.words:
            assert word.replace("ENDPOINT", hub.endpoint) in str(error)
        assert capfd.readouterr() == ("", "")

    def test_unreachable(self, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("huggingface_hub.constants.ENDPOINT", "datasets.config.HF_ENDPOINT"):
            monkeypatch.setattr(name, "http://127.0.0.1:1")  # a port nobody may take

        assert str(failure(source())).startswith(f"hub: cannot fetch {REPO} from http://127.0.0.1:1 (ConnectError")

    def test_lost_on_the_way(self, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """What another revision left in the cache does not take the place of what the hub no longer gives."""
        scan(source())
        hub.revision, hub.mode = LATER, "ok"

        assert isinstance(failure(source(revision=LATER)), InputMissing)

    @pytest.mark.parametrize("split", ["train[:10%]", "train+test", "all", "train[:1]+test"])
    def test_no_slices(self, split: str) -> None:
        error = failure(source(split=split))

        assert isinstance(error, SpecError)
        assert str(error).startswith("split: must name one split, not a slice or a mix of splits; name several sources")

    def test_no_such_split(self, hub: HubServer) -> None:
        error = failure(source(config="pairs", split="dev"))

        assert str(error) == f"split: {REPO} has no split `dev`; it has `train`, `test`"
        assert not [name for name in hub.downloads if name != "README.md"]
        scan(source(config="pairs"))
        assert str(failure(source(config="pairs", split="dev"))) == str(error)

    def test_no_such_config(self, hub: HubServer) -> None:
        assert str(failure(source(config="other"))) == f"config: {REPO} has no config `other`; it has `chats`, `pairs`"

    def test_a_config_must_be_named(self, hub: HubServer) -> None:
        hub.files["README.md"] = FILES["README.md"].replace(b"  default: true\n", b"")

        assert str(failure(source())) == f"config: {REPO} has several configs; name one of `chats`, `pairs`"

    def test_a_loading_script(self, hub: HubServer) -> None:
        hub.files = {"small.py": b"raise SystemExit", "data.txt": b"a"}

        assert str(failure(source())) == (
            f"hub: {REPO} is a loading script, and no code of others is run;"
            " pin a commit of its branch refs/convert/parquet, or name files with `path`"
        )

    @pytest.mark.parametrize(
        "files", [{"README.md": b"# nothing"}, {"README.md": FILES["README.md"]}], ids=["no", "lost"]
    )
    def test_no_data_files(self, hub: HubServer, files: dict[str, bytes]) -> None:
        hub.files = files

        assert str(failure(source())) == (
            f"hub: {REPO} holds no data files that can be read;"
            " it needs JSON, JSON Lines, CSV, Parquet or Arrow files, and those that its README.md names"
        )

    @pytest.mark.parametrize(
        "data",
        [
            {"train.jsonl": f'{{"a": "{SECRET}"\n'.encode()},
            {"train.parquet": parquet(PAIRS)[:-20]},
            {"train.csv": f'a,b\n"{SECRET}\n'.encode()},
        ],
        ids=["json", "parquet", "csv"],
    )
    def test_files_that_cannot_be_read(
        self, hub: HubServer, data: dict[str, bytes], capfd: pytest.CaptureFixture[str]
    ) -> None:
        hub.files = data

        error = failure(source())

        assert isinstance(error, DataError)
        assert str(error).startswith(f"{REPO}@01234567/train: `datasets` cannot make rows of the data set's files (")
        assert str(error).endswith("); download the file and name it with `path`: then messages name its lines")
        assert capfd.readouterr() == ("", "")

    def test_files_of_different_columns(self, hub: HubServer) -> None:
        hub.files = {"train-0.jsonl": json_lines(PAIRS), "train-1.jsonl": f'{{"{SECRET}": 1}}\n'.encode()}

        assert str(failure(source())) == (
            f"{REPO}@01234567/train: the files of the data set do not have the same columns;"
            " name another `config`, or a file of your own with `path`"
        )

    def test_disk_full(self, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("datasets.arrow_writer.ArrowWriter.write_table", full)

        with pytest.raises(DiskFull, match="set HF_HOME"):
            scan(source())

    def test_cache_that_cannot_be_written(self, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("datasets.builder.FileLock", refused)

        with pytest.raises(ConfigurationError, match="set HF_HOME"):
            scan(source())


def test_names() -> None:
    assert hub_name(source()) == "owner/small@01234567/train"
    assert hub_name(source(config="pairs", split="test")) == "owner/small@01234567/pairs/test"
