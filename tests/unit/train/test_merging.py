"""A merged model on its way to `_SUCCESS`, with ranks and a merge that act out scripts."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sftjob.contract import ExitCode, keys
from sftjob.records import Export, read_record
from sftjob.train.supervisor import supervise
from sftjob.train.verdict import Verdict

Stage = Any  # of conftest.py, which cannot be imported
PARITY = {
    "split": "eval",
    "rows": 1,
    "positions": 2,
    "tolerance": 0.05,
    "difference": {"max": 0.01, "mean": 0.01, "top1": 1.0},
}
MERGES = f"""
import pathlib, sys
work = pathlib.Path(sys.argv[2])
assert (work / "export" / "config.json").exists()
(work / "merged").mkdir()
(work / "merged" / "config.json").write_text("{{}}")
(work / "merge.json").write_text({json.dumps(PARITY)!r})
"""
REFUSES = """
import pathlib, sys
(pathlib.Path(sys.argv[2]) / "merge.error").write_text("export.merge_tolerance: 0.3 is more than 0.05; do\\n")
sys.exit(78)
"""


def play(stage: Stage, merge: str, *, facts: dict[str, object] | None = None) -> Verdict:
    """An attempt of a LoRA job that asks for a merged model."""
    stage.spec(method={"type": "lora"}, export={"merge": True})
    if facts:
        path = Path(stage.folder) / "model" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))
    programs = dataclasses.replace(
        stage.programs(["save", 1], ["done"]), merge=(sys.executable, "-S", "-E", "-c", merge)
    )
    return supervise(stage.settings, programs)


def test_it_is_published_beside_the_adapter(stage: Stage) -> None:
    assert play(stage, MERGES).code is ExitCode.DONE
    export = read_record(Export, stage.store.get_bytes(keys.SUCCESS), keys.SUCCESS)
    assert [entry.path for entry in export.files] == ["config.json", "weights.bin"]
    assert export.merged is not None
    assert [entry.key for entry in export.merged.files] == ["export/1/merged/config.json"]
    assert export.merged.parity.difference.max == 0.01
    assert stage.has("export/1/merged/config.json")


def test_nothing_is_published_when_it_is_not_what_was_trained(stage: Stage) -> None:
    verdict = play(stage, REFUSES)
    assert verdict.code is ExitCode.CONFIGURATION
    assert verdict.reason == "export.merge_tolerance: 0.3 is more than 0.05; do"
    assert stage.has(keys.FAILED)
    assert not stage.has(keys.SUCCESS)
    assert not [info for info in stage.store.list() if info.key.startswith("export/")]


def test_another_wish_is_the_same_run_and_trains_nothing_again(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play(stage, REFUSES).code is ExitCode.CONFIGURATION
    stage.spec(export={"merge": False})
    assert stage.play(["note_resume"], ["save", 1], ["done"]).code is ExitCode.DONE
    assert json.loads((stage.folder / "resumed").read_text()) == 1
    export = read_record(Export, stage.store.get_bytes(keys.SUCCESS), keys.SUCCESS)
    assert export.merged is None
    assert "merged" not in capsys.readouterr().out
    stage.spec(export={"merge": True})
    assert stage.play().code is ExitCode.DONE
    assert "it has published no merged model; `sftjob merge` makes one of it" in capsys.readouterr().out


def test_a_mixture_s_frozen_experts_are_told_of(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    play(stage, MERGES, facts={"num_local_experts": 4})
    assert "note: the 4 experts of each layer stay as they are" in capsys.readouterr().out
