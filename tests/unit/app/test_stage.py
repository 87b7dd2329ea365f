"""What `sftjob stage` sends, what it leaves, and what it writes; on a store in a folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from sftjob.app.stage import pin_for_cluster, pinned_yaml, stage_inputs
from sftjob.app.stage import stage as stage_spec
from sftjob.contract import keys
from sftjob.errors import InputMissing, SpecError, Unavailable
from sftjob.inputs import fetch_data
from sftjob.model_source import fetch_model
from sftjob.records import StagedInput, read_record
from sftjob.spec import PinnedData, PinnedModel, Profile, TemplateText, load_spec, run_id
from sftjob.storage import FolderStore

SPEC = """\
name: job
model: {path: model}
data:
  train: [{path: rows.jsonl, format: prompt_completion, columns: {prompt: "on"}}]
  eval: [{path: held-out.jsonl}]
  template: {path: chat.jinja}
method: {type: lora, r: 8, lora_alpha: 16}
training: {learning_rate: 1e-5, max_steps: 3}
evaluation: {generation: {prompts: ["2e-4", "yes", "two\\nlines: 'x'"]}}
storage: {uri: "s3://bucket/runs"}
"""
ROWS = json.dumps({"on": "a", "completion": "b"}) + "\n"


class Counting(FolderStore):
    """Notes which files are written through it, and refuses those that are called `fails`."""

    def __init__(self, folder: Path, written: list[str], fails: str = "") -> None:
        super().__init__(folder)
        self.written = written
        self.fails = fails

    def put_file(self, key: str, path: Path, *, sha256: str, on_sent: Any = None) -> None:
        if self.fails and key.endswith(self.fails):
            raise Unavailable("no answer")
        super().put_file(key, path, sha256=sha256, on_sent=on_sent)
        self.written.append(key)


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path) -> Path:
    """Where the spec lies, with everything that it names."""
    model_folder.rename(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text(ROWS)
    (tmp_path / "held-out.jsonl").write_text(ROWS * 2)
    (tmp_path / "chat.jinja").write_text("{% for m in messages %}\n{{ m }}\n{% endfor %}\n")
    (tmp_path / "job.yaml").write_text(SPEC)
    return tmp_path


@pytest.fixture
def written() -> list[str]:
    return []


@pytest.fixture
def root(tmp_path: Path, written: list[str]) -> Counting:
    return Counting(tmp_path / "store", written)


def stage(folder: Path, root: FolderStore, *, verify: bool = False) -> tuple[int, list[str]]:
    told: list[str] = []
    job = pin_for_cluster(load_spec(folder / "job.yaml"))
    return stage_inputs(job, root, verify=verify, progress=told.append), told


def manifest(root: FolderStore, sha256: str) -> StagedInput:
    key = keys.input_manifest(sha256)
    return read_record(StagedInput, root.get_bytes(key), key)


class TestPinned:
    def test_is_the_same_run_when_it_is_read_back(self, folder: Path, tmp_path: Path) -> None:
        job = pin_for_cluster(load_spec(folder / "job.yaml"))
        (tmp_path / "elsewhere").mkdir()
        pinned = tmp_path / "elsewhere" / "pinned.yaml"
        pinned.write_text(pinned_yaml(job.spec, note="made by a test"))

        again = load_spec(pinned).spec

        assert again == job.spec
        assert run_id(again) == job.run_id
        assert isinstance(again.data.template, TemplateText)
        assert pinned.read_text().startswith("# made by a test\n")

    def test_launch_and_store_stay_as_they_were_written(self, folder: Path) -> None:
        loaded = load_spec(folder / "job.yaml")
        spec = pin_for_cluster(loaded).spec

        assert spec.launch == loaded.spec.launch
        assert spec.storage == loaded.spec.storage

    def test_new_run_is_another_run_each_time(self, folder: Path) -> None:
        loaded = load_spec(folder / "job.yaml")

        assert len({pin_for_cluster(loaded, new_run=new).run_id for new in (False, True, True)}) == 3

    def test_no_store_is_told_with_its_line(self, folder: Path) -> None:
        (folder / "job.yaml").write_text(SPEC.partition("storage:")[0])

        with pytest.raises(SpecError, match=r"job\.yaml:1: storage\.uri: neither the spec nor the profile says"):
            stage_spec(load_spec(folder / "job.yaml"), Profile())

    def test_a_missing_file_is_told_with_its_line(self, folder: Path) -> None:
        (folder / "held-out.jsonl").unlink()

        with pytest.raises(InputMissing, match=r"job\.yaml:5: data\.eval\.0\.path: .*held-out\.jsonl does not exist"):
            pin_for_cluster(load_spec(folder / "job.yaml"))


class TestStage:
    def test_pods_find_everything(self, folder: Path, root: Counting, tmp_path: Path) -> None:
        stage(folder, root)
        spec = pin_for_cluster(load_spec(folder / "job.yaml")).spec
        (train,), model = spec.data.train, spec.model
        assert isinstance(train, PinnedData)
        assert isinstance(model, PinnedModel)

        path, name = fetch_data(train, tmp_path / "pod", store_root=root, inputs={})
        found = fetch_model(model, tmp_path / "pod" / "model", store_root=root, inputs={})

        assert (path.read_text(), name) == (ROWS, "rows.jsonl")
        assert (found / "model.safetensors").read_bytes() == (folder / "model" / "model.safetensors").read_bytes()

    def test_the_manifest_names_every_file(self, folder: Path, root: Counting) -> None:
        stage(folder, root)
        model = pin_for_cluster(load_spec(folder / "job.yaml")).spec.model
        assert isinstance(model, PinnedModel)

        files = manifest(root, model.sha256).files

        assert [file.path for file in files] == ["config.json", "model.safetensors", "tokenizer.json"]
        assert all(root.head(file.key).size == file.size for file in files)

    def test_what_is_there_is_not_sent_again(self, folder: Path, root: Counting, written: list[str]) -> None:
        first, _ = stage(folder, root)
        count = len(written)
        second, told = stage(folder, root)

        assert (count, len(written)) == (5, 5)
        assert first > 0
        assert second == 0
        assert [line.split()[:2] for line in told] == [
            ["staged", "model"],
            ["staged", "rows.jsonl"],
            ["staged", "held-out.jsonl"],
        ]

    def test_an_edited_file_is_sent(self, folder: Path, root: Counting, written: list[str]) -> None:
        stage(folder, root)
        written.clear()
        (folder / "rows.jsonl").write_text(ROWS * 3)

        sent, _ = stage(folder, root)

        assert [key.rpartition("/")[2] for key in written] == ["rows.jsonl"]
        assert sent == len(ROWS) * 3

    def test_half_staged_is_never_taken_for_whole(self, folder: Path, tmp_path: Path, written: list[str]) -> None:
        model = pin_for_cluster(load_spec(folder / "job.yaml")).spec.model
        assert isinstance(model, PinnedModel)
        broken = Counting(tmp_path / "store", written, fails="tokenizer.json")
        with pytest.raises(Unavailable):
            stage(folder, broken)

        assert [
            info.key for info in broken.list("inputs/") if info.key.endswith(".json") and "/" not in info.key[7:]
        ] == []
        with pytest.raises(InputMissing, match="sftjob stage SPEC"):
            fetch_model(model, tmp_path / "pod", store_root=broken, inputs={})

        broken.fails = ""
        stage(folder, broken)
        assert fetch_model(model, tmp_path / "pod", store_root=broken, inputs={}).is_dir()

    def test_what_was_deleted_is_sent_again(self, folder: Path, root: Counting, written: list[str]) -> None:
        stage(folder, root)
        model = pin_for_cluster(load_spec(folder / "job.yaml")).spec.model
        assert isinstance(model, PinnedModel)
        root.delete(keys.input(model.sha256, "tokenizer.json"))
        written.clear()

        stage(folder, root)

        assert keys.input(model.sha256, "tokenizer.json") in written

    def test_the_same_content_under_two_names_is_two_files(self, folder: Path, root: Counting, tmp_path: Path) -> None:
        (folder / "held-out.jsonl").unlink()
        (folder / "held-out.json").write_text(ROWS)
        (folder / "job.yaml").write_text(SPEC.replace("held-out.jsonl", "held-out.json"))
        stage(folder, root)
        spec = pin_for_cluster(load_spec(folder / "job.yaml")).spec

        paths = [
            fetch_data(source, tmp_path / "pod", store_root=root, inputs={})[0]
            for source in (*spec.data.train, *spec.data.eval)
            if isinstance(source, PinnedData)
        ]

        assert [path.name for path in paths] == ["rows.jsonl", "held-out.json"]
        _, told = stage(folder, root)
        assert all("is there already" in line for line in told)

    def test_verify_repairs_what_is_damaged(self, folder: Path, root: Counting, written: list[str]) -> None:
        stage(folder, root)
        (train,) = pin_for_cluster(load_spec(folder / "job.yaml")).spec.data.train
        assert isinstance(train, PinnedData)
        key = keys.input(train.sha256, "rows.jsonl")
        root.put_bytes(key, ROWS.replace("a", "z").encode())
        written.clear()

        assert stage(folder, root)[0] == 0
        sent, told = stage(folder, root, verify=True)

        assert (sent, written) == (len(ROWS), [key])
        assert root.get_bytes(key) == ROWS.encode()
        assert any(line.startswith("damaged  ") and "rows.jsonl" in line for line in told)

    def test_a_file_that_changes_meanwhile_is_refused(self, folder: Path, root: Counting) -> None:
        job = pin_for_cluster(load_spec(folder / "job.yaml"))
        (folder / "rows.jsonl").write_text(ROWS * 2)

        with pytest.raises(InputMissing, match=r"rows\.jsonl .* has changed while it was read"):
            stage_inputs(job, root)

    def test_a_pinned_spec_asks_only_whether_its_inputs_are_staged(self, folder: Path, root: Counting) -> None:
        job = pin_for_cluster(load_spec(folder / "job.yaml"))
        (folder / "pinned.yaml").write_text(pinned_yaml(job.spec, note="x"))
        pinned = pin_for_cluster(load_spec(folder / "pinned.yaml"))

        with pytest.raises(InputMissing, match=r"^model is known by its content alone .*sftjob stage SPEC$"):
            stage_inputs(pinned, root)

        stage(folder, root)
        assert stage_inputs(pinned, root) == 0
