"""What a run tells while it trains, to those whom the spec names: one training with TensorBoard and W&B offline."""

import os
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sftjob.spec import Monitoring
from sftjob.train.workdir import RankInput

from . import tiny

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tiny.Run:
    root = tmp_path_factory.mktemp("monitoring")
    model, data = tiny.write_model(root / "model"), tiny.write_data(root / "data")
    work = tiny.prepare(root / "work", tiny.job(max_steps=4), model=model, data=data)
    report_to = ("tensorboard", "wandb") if find_spec("wandb") else ("tensorboard",)
    given = RankInput.model_validate_json(work.rank_input.read_bytes())
    asked = given.model_copy(update={"monitoring": Monitoring(report_to=report_to)})
    work.rank_input.write_bytes(asked.to_json())
    with patch.dict(os.environ, {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_API_KEY": "canary-of-a-key"}):
        return tiny.run_here(work)


def test_the_machine_is_in_the_lines(told: tiny.Run) -> None:
    lines = [line for line in told.metrics if line.kind == "train"]
    assert [line.step for line in lines] == [2, 4]
    assert all(line.host_memory_bytes and line.host_memory_limit_bytes for line in lines)
    assert {line.memory_kind for line in told.metrics} <= {"resident", "device"}


def test_event_files_are_whole_and_have_the_curves(told: tiny.Run) -> None:
    assert list((told.work.root / "tensorboard-open").iterdir()) == []
    events = EventAccumulator(str(told.work.tensorboard)).Reload()
    losses = {event.step: event.value for event in events.Scalars("train/loss")}
    assert losses == pytest.approx({line.step: line.loss for line in told.metrics if line.kind == "train"})
    assert {"eval/loss", "machine/host_memory_bytes", "machine/memory_bytes"} <= set(events.Tags()["scalars"])


@pytest.mark.skipif(find_spec("wandb") is None, reason="needs the extra `wandb`")
def test_wandb_offline_keeps_the_run(told: tiny.Run) -> None:
    (run,) = Path(told.work.root / "wandb").glob("offline-run-*")
    (file,) = run.glob("run-tiny-00000000.wandb")
    data = file.read_bytes()
    assert b"train/loss" in data
    assert b"canary-of-a-key" not in data
