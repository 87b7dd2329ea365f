import json
from pathlib import Path
from typing import Any

import pytest

from sftjob.contract import keys
from sftjob.errors import InputMissing, StorageError
from sftjob.records import Evaluation, EvaluationManifest, FileEntry
from sftjob.report import load_evaluation, report
from sftjob.spec import sha256_hex
from sftjob.storage import FolderStore


def finish(store: FolderStore, evaluation: Evaluation) -> None:
    key, data = keys.evaluation(evaluation.eval_id, "scores.json"), evaluation.to_json()
    store.put_bytes(key, data)
    manifest = EvaluationManifest(
        run_id=evaluation.run_id,
        eval_id=evaluation.eval_id,
        files=(FileEntry(path="scores.json", key=key, size=len(data), sha256=sha256_hex(data)),),
        time=evaluation.time,
    )
    store.put_bytes(keys.evaluation(evaluation.eval_id, keys.SUCCESS), manifest.to_json())


def test_the_newest_finished_evaluation_is_read(tmp_path: Path, make_evaluation: Any) -> None:
    store = FolderStore(tmp_path)
    newer = make_evaluation(eval_id="1" * 16, time="2026-11-25T00:00:00+00:00")
    for evaluation in (make_evaluation(eval_id="2" * 16), newer, make_evaluation(eval_id="0" * 16)):
        finish(store, evaluation)
    unfinished = make_evaluation(eval_id="3" * 16, time="2026-11-26T00:00:00+00:00")
    store.put_bytes(keys.evaluation(unfinished.eval_id, "scores.json"), unfinished.to_json())
    assert load_evaluation(store) == newer


def test_a_run_without_one_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="no finished evaluation"):
        load_evaluation(FolderStore(tmp_path))


def test_changed_scores_are_refused(tmp_path: Path, make_evaluation: Any) -> None:
    store = FolderStore(tmp_path)
    finish(store, make_evaluation())
    key = keys.evaluation(make_evaluation().eval_id, "scores.json")
    store.put_bytes(key, store.get_bytes(key).replace(b"0.75", b"0.95"))
    with pytest.raises(StorageError, match=key):
        load_evaluation(store)


def test_json_holds_the_records(make_evaluation: Any) -> None:
    parsed = json.loads(report([make_evaluation()]).json)
    assert parsed["schema_version"] == 1
    assert [Evaluation.model_validate(value) for value in parsed["evaluations"]] == [make_evaluation()]
