import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from sftjob import inputs
from sftjob.contract import ExitCode, keys
from sftjob.errors import ConfigurationError, Denied, InputMissing, SftjobError
from sftjob.inputs import base_name, fetch_data, hash_input, pin_local
from sftjob.spec import (
    DataSource,
    HubModel,
    JobSpec,
    LocalData,
    LocalModel,
    ModelSource,
    PinnedData,
    PinnedModel,
    StoredData,
    StoredModel,
    authored,
    canonical_spec,
    run_id,
)
from sftjob.storage import FolderStore

HEADER = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
MODEL = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "tokenizer.json": b"{}",
    "model.safetensors": len(HEADER).to_bytes(8, "little") + HEADER + b"\0\0\0\0",
}
ROWS = b'{"prompt": "1+1", "completion": "2"}\n'


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def make_spec(model: dict[str, Any], data: dict[str, Any], **blocks: Any) -> JobSpec:
    value = {"name": "job", "model": model, "data": data, "method": {"type": "full"}, **blocks}
    return JobSpec.model_validate_json(json.dumps(value))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a spec lies: a model, training rows, held-out rows."""
    write(tmp_path / "spec" / "tiny", MODEL)
    return write(tmp_path / "spec", {"train.jsonl": ROWS, "eval.jsonl": ROWS * 2})


class TestHashInput:
    def test_file(self, folder: Path) -> None:
        assert hash_input(folder / "train.jsonl") == sha256(ROWS)

    def test_folder(self, folder: Path) -> None:
        listing = [[name, len(data), sha256(data)] for name, data in sorted(MODEL.items())]

        assert hash_input(folder / "tiny") == sha256(rfc8785.dumps(listing))

    @pytest.mark.parametrize("name", sorted(MODEL))
    def test_every_file_of_the_model_counts(self, folder: Path, name: str) -> None:
        before = hash_input(folder / "tiny")
        data = bytearray(MODEL[name])
        data[-1] ^= 1
        (folder / "tiny" / name).write_bytes(data)

        assert hash_input(folder / "tiny") != before

    @pytest.mark.parametrize(
        ("name", "changes"),
        [("chat_template.jinja", True), ("README.md", False), ("pytorch_model.bin", False), ("modeling.py", False)],
    )
    def test_only_what_would_be_fetched_counts(self, folder: Path, name: str, changes: bool) -> None:
        before = hash_input(folder / "tiny")
        (folder / "tiny" / name).write_bytes(b"more")

        assert (hash_input(folder / "tiny") != before) == changes

    def test_shards_of_the_index_count(self, tmp_path: Path) -> None:
        index = json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}).encode()
        files = {"model.safetensors.index.json": index, "model-00001-of-00001.safetensors": b"1", "b.safetensors": b"2"}
        before = hash_input(write(tmp_path, files))

        (tmp_path / "b.safetensors").write_bytes(b"3")
        assert hash_input(tmp_path) == before
        (tmp_path / "model-00001-of-00001.safetensors").write_bytes(b"3")
        assert hash_input(tmp_path) != before

    def test_place_does_not_count(self, folder: Path, tmp_path: Path) -> None:
        assert hash_input(folder / "tiny") == hash_input(write(tmp_path / "elsewhere", MODEL))

    def test_progress(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inputs, "_CHUNK_BYTES", 10)
        monkeypatch.setattr(inputs, "_LINE_EVERY_BYTES", 20)
        lines: list[str] = []

        hash_input(folder / "train.jsonl", progress=lines.append)

        assert lines == ["hashing train.jsonl: 0.0 of 0.0 GiB"]
        assert len(ROWS) == 37

    def test_absent(self, tmp_path: Path) -> None:
        with pytest.raises(InputMissing, match=r"rows\.jsonl does not exist"):
            hash_input(tmp_path / "rows.jsonl")

    def test_unreadable(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(path: Path, *_: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", refused)

        with pytest.raises(Denied, match=r"train\.jsonl may not be read"):
            hash_input(folder / "train.jsonl")


class TestPinLocal:
    def test_replaces_paths_by_hashes(self, folder: Path) -> None:
        spec = make_spec(
            {"path": "tiny"},
            {
                "train": [{"path": "./train.jsonl", "format": "prompt_completion"}, {"uri": "s3://bucket/more.jsonl"}],
                "eval": [{"path": str(folder / "eval.jsonl"), "columns": {"prompt": "question"}}],
                "train_on": "all",
            },
            training={"max_steps": 3},
        )

        pinned, local = pin_local(spec, folder)

        model = hash_input(folder / "tiny")
        assert authored(pinned) == {
            **authored(spec),
            "model": {"sha256": model, "name": "tiny"},
            "data": {
                "train": [
                    {"format": "prompt_completion", "sha256": sha256(ROWS), "name": "train.jsonl"},
                    {"uri": "s3://bucket/more.jsonl"},
                ],
                "eval": [{"columns": {"prompt": "question"}, "sha256": sha256(ROWS * 2), "name": "eval.jsonl"}],
                "train_on": "all",
            },
        }
        assert local == {
            model: folder / "tiny",
            sha256(ROWS): folder / "train.jsonl",
            sha256(ROWS * 2): folder / "eval.jsonl",
        }

    def test_the_canonical_form_is_stable(self, folder: Path) -> None:
        spec = make_spec({"path": "tiny"}, {"train": [{"path": "train.jsonl"}]})

        pinned, _ = pin_local(spec, folder)
        again, nothing = pin_local(JobSpec.model_validate_json(canonical_spec(pinned)), folder)

        assert nothing == {}
        assert canonical_spec(again) == canonical_spec(pinned)
        assert "eval" not in authored(pinned)["data"]

    def test_an_edited_file_is_another_run(self, folder: Path) -> None:
        spec = make_spec({"path": "tiny"}, {"train": [{"path": "train.jsonl"}]})
        before = run_id(pin_local(spec, folder)[0])

        assert run_id(pin_local(spec, folder)[0]) == before
        (folder / "train.jsonl").write_bytes(ROWS * 3)
        assert run_id(pin_local(spec, folder)[0]) != before

    def test_a_spec_without_local_paths_stays_as_it_is(self, tmp_path: Path) -> None:
        spec = make_spec({"hub": "owner/name", "revision": "0" * 40}, {"train": [{"uri": "s3://bucket/rows.jsonl"}]})

        assert pin_local(spec, tmp_path) == (spec, {})
        assert canonical_spec(pin_local(spec, tmp_path)[0]) == canonical_spec(spec)

    def test_names_every_missing_file_with_its_field(self, folder: Path) -> None:
        spec = make_spec(
            {"path": "absent"},
            {"train": [{"path": "train.jsonl"}, {"path": "gone.jsonl"}], "eval": [{"path": "tiny"}]},
        )

        with pytest.raises(InputMissing) as caught:
            pin_local(spec, folder)
        assert [(problem.field, problem.reason) for problem in caught.value.problems] == [
            ("model.path", f"{folder}/absent does not exist"),
            ("data.train.1.path", f"{folder}/gone.jsonl does not exist"),
            ("data.eval.0.path", f"{folder}/tiny is a folder"),
        ]

    def test_a_template_file_becomes_text(self, folder: Path) -> None:
        (folder / "chat.jinja").write_text("{{ messages }}é\n", encoding="utf-8")
        data = {"train": [{"path": "train.jsonl", "weight": 2.0}], "template": {"path": "chat.jinja"}}
        spec, local = pin_local(make_spec({"path": "tiny"}, data), folder)

        assert authored(spec)["data"]["template"] == {"jinja": "{{ messages }}é\n"}
        assert authored(spec)["data"]["train"] == [{"sha256": sha256(ROWS), "name": "train.jsonl", "weight": 2.0}]
        assert len(local) == 2
        assert JobSpec.model_validate_json(canonical_spec(spec)) == spec

        (folder / "chat.jinja").write_text("{{ messages }}", encoding="utf-8")
        assert run_id(pin_local(make_spec({"path": "tiny"}, data), folder)[0]) != run_id(spec)

    @pytest.mark.parametrize(
        ("content", "error", "reason"),
        [
            (None, InputMissing, "chat.jinja does not exist"),
            (b"", ConfigurationError, "the template has 0 characters"),
            (b"x" * 65_537, ConfigurationError, "the template has 65,537 characters"),
            (b"\xff", ConfigurationError, "the template is not UTF-8"),
        ],
    )
    def test_a_template_file_that_cannot_be_used(
        self, folder: Path, content: bytes | None, error: type[SftjobError], reason: str
    ) -> None:
        if content is not None:
            (folder / "chat.jinja").write_bytes(content)
        spec = make_spec({"path": "tiny"}, {"train": [{"path": "train.jsonl"}], "template": {"path": "chat.jinja"}})
        with pytest.raises(error) as caught:
            pin_local(spec, folder)

        assert caught.value.problems[0].field == "data.template.path"
        assert reason in caught.value.problems[0].reason

    def test_a_model_that_is_a_file(self, folder: Path) -> None:
        spec = make_spec({"path": "train.jsonl"}, {"train": [{"path": "train.jsonl"}]})

        with pytest.raises(InputMissing, match=r"^model\.path: .* is a file; name the folder that holds config\.json$"):
            pin_local(spec, folder)

    def test_a_model_without_weights(self, folder: Path) -> None:
        (folder / "tiny" / "model.safetensors").unlink()
        spec = make_spec({"path": "tiny"}, {"train": [{"path": "train.jsonl"}]})

        with pytest.raises(InputMissing, match=r"^model\.path: no \*\.safetensors in tiny"):
            pin_local(spec, folder)

    def test_a_model_with_code_of_its_own(self, folder: Path) -> None:
        (folder / "tiny" / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}')
        spec = make_spec({"path": "tiny"}, {"train": [{"path": "train.jsonl"}]})

        with pytest.raises(ConfigurationError, match=r"^model\.path: tiny/config\.json asks for Python code"):
            pin_local(spec, folder)

    def test_a_relative_folder_gives_absolute_paths(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder.parent)
        spec = make_spec({"path": "tiny"}, {"train": [{"path": "train.jsonl"}]})

        assert pin_local(spec, Path("spec")) == pin_local(spec, folder)

    def test_the_folder_itself(self, folder: Path) -> None:
        spec = make_spec({"path": "."}, {"train": [{"path": "../train.jsonl"}]})

        pinned, _ = pin_local(spec, folder / "tiny")

        assert pinned.model == PinnedModel(sha256=hash_input(folder / "tiny"), name="tiny")


class TestFetchData:
    def test_local(self, folder: Path, tmp_path: Path) -> None:
        path = str(folder / "train.jsonl")

        assert fetch(LocalData(path=path), tmp_path / "work") == (Path(path), path)

    @pytest.mark.parametrize(("name", "reason"), [("gone.jsonl", "does not exist"), ("tiny", "is a folder")])
    def test_local_that_is_no_file(self, folder: Path, tmp_path: Path, name: str, reason: str) -> None:
        with pytest.raises(InputMissing, match=f"{name} {reason}"):
            fetch(LocalData(path=str(folder / name)), tmp_path / "work")

    def test_stored(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        opened: list[tuple[str, str | None, str | None]] = []

        def open_store(uri: str, *, endpoint_url: str | None, region: str | None) -> FolderStore:
            opened.append((uri, endpoint_url, region))
            return FolderStore(folder)

        monkeypatch.setattr(inputs, "open_store", open_store)

        path, name = fetch_data(
            StoredData(uri="s3://bucket/some/train.jsonl"),
            tmp_path / "work",
            store_root=None,
            inputs={},
            endpoint_url="http://127.0.0.1:9000",
            region="here",
        )

        assert path.read_bytes() == ROWS
        assert path.is_relative_to(tmp_path / "work")
        assert name == "s3://bucket/some/train.jsonl"
        assert opened == [("s3://bucket/some", "http://127.0.0.1:9000", "here")]

    def test_stored_under_the_same_name_twice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for part in ("a", "b"):
            write(tmp_path / part, {"train.jsonl": part.encode()})
        monkeypatch.setattr(inputs, "open_store", lambda uri, **_: FolderStore(tmp_path / uri[-1]))

        paths = [fetch(StoredData(uri=f"s3://bucket/{part}/train.jsonl"), tmp_path / "work")[0] for part in ("a", "b")]

        assert [path.read_text() for path in paths] == ["a", "b"]
        assert [path.name for path in paths] == ["train.jsonl", "train.jsonl"]

    @pytest.mark.parametrize(
        ("uri", "reason"),
        [
            ("s3://bucket/gone.jsonl", "s3://bucket/gone.jsonl does not exist; check the URI"),
            ("s3://bucket", "s3://bucket names no object"),
            ("s3://bucket/folder/", "s3://bucket/folder/ names no object"),
        ],
    )
    def test_stored_that_is_not_there(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, reason: str
    ) -> None:
        monkeypatch.setattr(inputs, "open_store", lambda *_, **__: FolderStore(folder))

        with pytest.raises(InputMissing, match=reason):
            fetch(StoredData(uri=uri), tmp_path / "work")

    def test_pinned_on_this_machine(self, folder: Path, tmp_path: Path) -> None:
        source = PinnedData(sha256=sha256(ROWS), name="mine.jsonl")

        assert fetch(source, tmp_path / "work", inputs={source.sha256: folder / "train.jsonl"}) == (
            folder / "train.jsonl",
            "mine.jsonl",
        )

    def test_pinned_and_changed_since(self, folder: Path, tmp_path: Path) -> None:
        source = PinnedData(sha256=sha256(b"other"), name="mine.jsonl")

        with pytest.raises(InputMissing, match=r"mine\.jsonl .* has changed since the run began"):
            fetch(source, tmp_path / "work", inputs={source.sha256: folder / "train.jsonl"})

    def test_pinned_in_the_store(self, tmp_path: Path) -> None:
        source = PinnedData(sha256=sha256(ROWS), name="mine.jsonl")
        root = FolderStore(tmp_path / "root")
        root.put_bytes(keys.input(source.sha256, "mine.jsonl"), ROWS)

        path, name = fetch(source, tmp_path / "work", store_root=root)

        assert (path.read_bytes(), path.name, name) == (ROWS, "mine.jsonl", "mine.jsonl")

    def test_pinned_and_other_content_in_the_store(self, tmp_path: Path) -> None:
        source = PinnedData(sha256=sha256(ROWS), name="mine.jsonl")
        root = FolderStore(tmp_path / "root")
        root.put_bytes(keys.input(source.sha256, "mine.jsonl"), b"other")

        with pytest.raises(SftjobError) as caught:
            fetch(source, tmp_path / "work", store_root=root)
        assert caught.value.exit_code == ExitCode.STORAGE
        assert [path for path in (tmp_path / "work").rglob("*") if path.is_file()] == []

    def test_pinned_and_never_staged(self, tmp_path: Path) -> None:
        source = PinnedData(sha256=sha256(ROWS), name="mine.jsonl")

        with pytest.raises(InputMissing, match=r"mine\.jsonl was not staged under .*; submit the job again"):
            fetch(source, tmp_path / "work", store_root=FolderStore(tmp_path / "root"))
        with pytest.raises(InputMissing, match="neither it nor a store"):
            fetch(source, tmp_path / "work")


def fetch(
    source: DataSource, into: Path, *, store_root: FolderStore | None = None, inputs: Mapping[str, Path] | None = None
) -> tuple[Path, str]:
    return fetch_data(source, into, store_root=store_root, inputs=inputs or {})


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (HubModel(hub="owner/name", revision="0" * 40), "owner/name"),
        (LocalModel(path="models/tiny/"), "tiny"),
        (LocalModel(path="."), Path.cwd().name),
        (StoredModel(uri="s3://bucket/models/tiny"), "s3://bucket/models/tiny"),
        (PinnedModel(sha256="0" * 64, name="tiny"), "tiny"),
    ],
)
def test_base_name(source: ModelSource, name: str) -> None:
    assert base_name(source) == name
