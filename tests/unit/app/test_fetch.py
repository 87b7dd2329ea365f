"""Fetching what a run has published: all of it and right, or nothing."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from sftjob.app import fetch as module
from sftjob.app.fetch import Fetched, fetch
from sftjob.app.stage import pin_for_cluster
from sftjob.app.where import Where
from sftjob.contract import keys
from sftjob.errors import InputMissing, ObjectMissing, SpecError, StorageError
from sftjob.records import EvaluationManifest, Export, FileEntry, LogitDifference, MergedModel, MergeParity
from sftjob.spec import load_spec
from sftjob.storage import FolderStore

RUN = "job-12345678"
FILES = {"adapter_model.safetensors": b"weights", "tokenizer.json": b"{}"}
MERGED = {"model.safetensors": b"more weights"}
REPORT = {"report.md": b"# report", "report.html": b"<html>", "scores.json": b"{}"}


def put(store: FolderStore, prefix: str, files: dict[str, bytes]) -> tuple[FileEntry, ...]:
    for name, data in files.items():
        store.put_bytes(f"{prefix}{name}", data)
    return tuple(
        FileEntry(path=name, key=f"{prefix}{name}", size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in files.items()
    )


def publish(store: FolderStore, *, adapter: bool = True, merged: bool = False, run_id: str = RUN) -> None:
    same = LogitDifference(max=0, mean=0, top1=1)
    parity = MergeParity(split="eval", rows=1, positions=1, tolerance=0.1, difference=same)
    export = Export(
        run_id=run_id,
        attempt=1,
        step=3,
        method="lora" if adapter else "full",
        adapter=adapter,
        files=put(store, keys.export(1), FILES),
        merged=MergedModel(files=put(store, keys.export(1, "merged/"), MERGED), parity=parity) if merged else None,
        time="2026-01-01T00:00:00Z",
    )
    store.put_bytes(keys.SPEC, b"{}")
    store.put_bytes(keys.SUCCESS, export.to_json())


def evaluate(store: FolderStore, eval_id: str = "e1", *, day: int = 1, report: bytes = b"# report") -> None:
    files = put(store, keys.evaluation(eval_id), {**REPORT, "report.md": report})
    manifest = EvaluationManifest(run_id=RUN, eval_id=eval_id, files=files, time=f"2026-01-{day:02d}T00:00:00Z")
    store.put_bytes(keys.evaluation(eval_id, keys.SUCCESS), manifest.to_json())


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    """At the run; results go below the folder `here`."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    (tmp_path / "store" / RUN).mkdir(parents=True)
    return FolderStore(tmp_path / "store" / RUN)


def call(store: FolderStore, **options: Any) -> Fetched:
    folder = Path(store.uri.removeprefix("file://"))
    return fetch(str(folder), options.pop("output", None), Where(), load_spec, **options)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def below(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}/{path}": data for path, data in files.items()}


class TestParts:
    def test_weights_and_report_go_into_a_folder_called_like_the_run(self, store: FolderStore) -> None:
        publish(store)
        evaluate(store)

        done = call(store)

        assert done == Fetched(run_id=RUN, folder=Path(RUN), parts=("adapter", "report"))
        assert content(Path(RUN)) == below("adapter", FILES) | below("report", REPORT)

    def test_a_whole_model_is_called_so_and_a_merged_one_lies_beside_the_adapter(
        self, store: FolderStore, tmp_path: Path
    ) -> None:
        publish(store, adapter=False)
        assert call(store, output=tmp_path / "a" / "b").parts == ("model",)

        publish(store, merged=True)
        call(store)
        assert content(Path(RUN)) == below("adapter", FILES) | below("merged", MERGED)

    def test_of_several_evaluations_the_newest_counts(self, store: FolderStore) -> None:
        publish(store)
        evaluate(store, "newer", day=9, report=b"newer")
        evaluate(store, "older", day=2, report=b"older")

        call(store)

        assert Path(RUN, "report", "report.md").read_bytes() == b"newer"

    def test_without_an_evaluation_it_says_so(self, store: FolderStore) -> None:
        publish(store)
        told: list[str] = []

        assert call(store, progress=told.append).parts == ("adapter",)
        assert any("there is no report" in line for line in told)

    def test_the_report_alone(self, store: FolderStore) -> None:
        publish(store)
        with pytest.raises(InputMissing, match=f"no finished evaluation; sftjob status {RUN}"):
            call(store, report_only=True)
        evaluate(store)

        assert call(store, report_only=True).parts == ("report",)
        assert content(Path(RUN)) == below("report", REPORT)


class TestAllOrNothing:
    def test_a_damaged_file_is_named_and_nothing_is_left(self, store: FolderStore, tmp_path: Path) -> None:
        publish(store)
        evaluate(store)
        store.put_bytes(keys.evaluation("e1", "report.html"), b"<htm1>")

        with pytest.raises(StorageError, match=r"report\.html: has sha256"):
            call(store)
        assert list((tmp_path / "here").iterdir()) == []

    def test_a_folder_that_is_there_is_not_touched(self, store: FolderStore) -> None:
        publish(store)
        Path(RUN).mkdir()

        with pytest.raises(SpecError, match=f"^{RUN}: is there already; name a folder"):
            call(store)
        assert content(Path(RUN)) == {}

    def test_what_a_killed_one_has_left_is_removed(self, store: FolderStore) -> None:
        publish(store)
        Path(f".{RUN}.fetching").mkdir()
        Path(f".{RUN}.fetching", "old").write_text("x")

        call(store)

        assert content(Path()) == below(f"{RUN}/adapter", FILES)

    def test_training_that_has_not_finished_is_told(self, store: FolderStore) -> None:
        with pytest.raises(InputMissing, match=f"training has not finished; sftjob status {RUN}"):
            call(store)


SPEC = """\
name: job
model: {hub: a/b, revision: "0123456789012345678901234567890123456789"}
data: {train: [{uri: "s3://bucket/rows.jsonl"}]}
method: {type: lora}
"""


class TestReference:
    @pytest.fixture
    def opened(self, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """URIs of stores that were opened; each is the folder `store`."""
        uris: list[str] = []

        def open_it(uri: str, *_rest: object, **_options: object) -> FolderStore:
            uris.append(uri)
            return FolderStore(tmp_path / "store")

        monkeypatch.setattr(module, "open_from_here", open_it)
        monkeypatch.setattr(module, "open_root", lambda *_job, **_options: open_it("root"))
        return uris

    def test_an_address(self, store: FolderStore, opened: list[str]) -> None:
        publish(store)

        assert fetch(f"s3://bucket/runs/{RUN}/", None, Where(), load_spec).run_id == RUN
        assert opened == ["s3://bucket/runs"]

    def test_an_id_in_the_store_of_the_profile(self, store: FolderStore, opened: list[str], tmp_path: Path) -> None:
        publish(store)
        profile = tmp_path / "p.yaml"
        profile.write_text("storage: {uri: 's3://bucket/runs'}\n")

        assert fetch(RUN, None, Where(profile=str(profile)), load_spec).run_id == RUN
        assert opened == ["s3://bucket/runs"]

    def test_an_id_that_the_profile_does_not_know_is_asked_of_the_cluster(
        self, store: FolderStore, opened: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sftjob.app import run_target  # noqa: PLC0415 - as fetch itself does

        def missing(*_reference: object, **_options: object) -> None:
            raise ObjectMissing("no run")

        monkeypatch.setattr(run_target, "find_target", missing)

        with pytest.raises(ObjectMissing, match="no run"):
            fetch(RUN, None, Where(), load_spec)

    def test_a_spec_that_was_submitted(self, store: FolderStore, opened: list[str], tmp_path: Path) -> None:
        spec = tmp_path / "job.yaml"
        spec.write_text(f"{SPEC}storage: {{uri: 's3://bucket/runs'}}\n")
        run = pin_for_cluster(load_spec(spec)).run_id
        publish(FolderStore(tmp_path / "store" / run), run_id=run)

        assert fetch(str(spec), None, Where(), load_spec).run_id == run

    def test_a_spec_that_was_run_here(self, store: FolderStore, opened: list[str], tmp_path: Path) -> None:
        spec = tmp_path / "job.yaml"
        spec.write_text(f"{SPEC}launch: {{gpus_per_node: 0}}\n")

        with pytest.raises(InputMissing, match=r"this spec has not been run; sftjob submit \S+job\.yaml"):
            fetch(str(spec), None, Where(), load_spec)

        publish(FolderStore(Path(module.find_run(str(spec), load_spec).uri.removeprefix("file://"))))
        assert fetch(str(spec), None, Where(), load_spec).run_id == RUN
