import json
from pathlib import Path
from typing import Any

import pytest

from sftjob import container
from sftjob.app.check_store import check_store, main
from sftjob.contract import Env, ExitCode, keys
from sftjob.errors import SpecError
from sftjob.spec import JobSpec, run_id
from sftjob.storage import FolderStore


@pytest.fixture
def written() -> dict[str, Any]:
    return {
        "name": "job",
        "model": {"uri": "s3://models/tiny"},
        "data": {"train": [{"uri": "s3://data/train.jsonl"}]},
        "method": {"type": "lora"},
    }


@pytest.fixture
def spec(written: dict[str, Any], tmp_path: Path) -> Path:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(written))
    return file


def lines(file: Path, uri: str | None) -> list[str]:
    told: list[str] = []
    check_store(file, uri, tell=told.append)
    return told


def test_says_what_it_has_proved_and_leaves_nothing(spec: Path, written: dict[str, Any], tmp_path: Path) -> None:
    store = tmp_path / "store"
    run = run_id(JobSpec.model_validate_json(json.dumps(written)))

    told = lines(spec, str(store))

    assert told == [
        f"the spec is valid: run {run}",
        f"{store.as_uri()} can be listed, written, read and deleted",
        "of eight who created one object at once, one has won: two Jobs cannot hold one run",
        "the run is not trained to its end and has 0 commits",
    ]
    assert not [*FolderStore(store).list("")]


def test_knows_a_run_that_is_trained(spec: Path, written: dict[str, Any], tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store").at(run_id(JobSpec.model_validate_json(json.dumps(written))))
    store.put_bytes(keys.SUCCESS, b"{}")
    store.put_bytes(keys.commit(7), b"{}")

    assert lines(spec, str(tmp_path / "store"))[-1] == "the run is trained and has 1 commits"


def test_says_what_it_could_not_try(spec: Path, written: dict[str, Any], tmp_path: Path) -> None:
    spec.write_text(json.dumps({**written, "storage": {"single_writer": True}}))

    assert "conditional writes were not tried" in lines(spec, str(tmp_path / "store"))[2]


def test_a_store_has_to_be_named(spec: Path) -> None:
    with pytest.raises(SpecError, match="no store is named"):
        lines(spec, None)


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [("{}", ExitCode.SPEC, "name"), (None, ExitCode.INPUT, "cannot be read")],
)
def test_ends_with_the_code_of_what_is_wrong(
    text: str | None, code: ExitCode, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "spec.json"
    if text is not None:
        file.write_text(text)

    assert main(["--spec", str(file)]) is code
    assert message in capsys.readouterr().err


def test_reads_what_pods_are_told(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(Env.SPEC, str(spec))
    monkeypatch.setenv(Env.STORAGE_URI, str(tmp_path / "store"))

    assert main([]) is ExitCode.DONE


def test_a_store_without_conditional_writes_ends_with_78(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Replaces(FolderStore):
        def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
            super().put_bytes(key, data)

    monkeypatch.setattr(container, "open_store", lambda *_, **__: Replaces(tmp_path / "store"))
    monkeypatch.setenv(Env.STORAGE_URI, "s3://any/thing")

    assert main(["--spec", str(spec)]) is ExitCode.CONFIGURATION
    assert "single_writer" in capsys.readouterr().err
