"""What a rank does from its work folder to its export, and what it writes on the way."""

import errno
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch.nn import functional

from sftjob.contract import ExitCode
from sftjob.methods import load_base
from sftjob.plan import model_facts
from sftjob.resolved import ResolvedMethod
from sftjob.train.ledger import LedgerState
from sftjob.train.workdir import RankInput
from tests.train import tiny
from tests.train.tiny import FULL, LORA, QLORA, Run

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
EACH = pytest.mark.parametrize("method", [FULL, LORA, QLORA], ids=["full", "lora", "qlora"])


@EACH
class TestFinished:
    def test_trains_and_exports(self, method: ResolvedMethod, finished: Callable[[ResolvedMethod], Run]) -> None:
        run = finished(method)
        assert (run.result.exit_code, run.result.reason, run.result.step) == (0, "", 12)
        assert run.work.exported.exists()
        assert run.saved == {3: {0}, 6: {0}, 9: {0}, 12: {0}}
        losses = [float.fromhex(bits) for _, bits in run.losses]
        assert [step for step, _ in run.losses] == [2, 4, 6, 8, 10, 12]
        assert losses[-1] < losses[0] - 0.3
        assert [step for step, _ in run.held_out] == [4, 8, 12]

    def test_export_holds_safetensors_json_and_the_template_only(
        self, method: ResolvedMethod, finished: Callable[[ResolvedMethod], Run]
    ) -> None:
        names = {path.name for path in finished(method).work.export.iterdir()}
        weights = {"adapter_model.safetensors", "adapter_config.json"}
        if method is FULL:
            weights = {"model.safetensors", "config.json"}
        tokenizer = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
        assert names == {*weights, *tokenizer, "generation_config.json"}

    def test_counts_every_token(
        self,
        method: ResolvedMethod,
        finished: Callable[[ResolvedMethod], Run],
        tiny_data: Path,
    ) -> None:
        rows = Dataset.from_file(str(tiny_data / "train.arrow"))
        last = finished(method).metrics[-1]
        assert last.tokens_seen == 2 * sum(len(ids) for ids in rows["input_ids"])
        assert last.trained_tokens_seen == 2 * sum(sum(label != -100 for label in labels) for labels in rows["labels"])

    def test_records_what_ran(self, method: ResolvedMethod, finished: Callable[[ResolvedMethod], Run]) -> None:
        run = finished(method)
        asked, ran = run.environment.asked, run.environment.ran
        assert all(ran[name] == asked[name] for name in ("world_size", "rows_per_step", "precision", "attention"))
        assert ran["steps"] == 12
        trainable, total = ran["trainable_parameters"], ran["total_parameters"]
        assert isinstance(trainable, int)
        assert isinstance(total, int)
        assert trainable == total if method is FULL else trainable < total // 5


class TestLoss:
    def test_first_step_is_the_mean_over_labelled_tokens(
        self, tmp_path: Path, tiny_model: Path, tiny_data: Path
    ) -> None:
        job = tiny.job(per_device_train_batch_size=24, max_steps=1, logging_steps=1)
        run = tiny.run_here(tiny.prepare(tmp_path, job, model=tiny_model, data=tiny_data))
        model = load_base(tiny_model, vocab_size=tiny.VOCAB, dtype=torch.float32, seed=tiny.SEED)
        total, count = 0.0, 0
        for row in Dataset.from_file(str(tiny_data / "train.arrow")):
            labels = torch.tensor(row["labels"])
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
            total += functional.cross_entropy(logits[:-1], labels[1:], reduction="sum").item()
            count += int((labels[1:] != -100).sum())
        assert run.metrics[0].loss == pytest.approx(total / count, rel=1e-6)

    def test_accumulation_equals_a_larger_batch(self, tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
        losses, norms = {}, {}
        for batch, accumulation in ((8, 1), (4, 2), (4, 1)):
            job = tiny.job(
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulation,
                max_steps=3,
                logging_steps=1,
            )
            work = tiny.prepare(tmp_path / f"{batch}x{accumulation}", job, model=tiny_model, data=tiny_data)
            metrics = tiny.run_here(work).metrics
            losses[batch, accumulation] = [metric.loss for metric in metrics]
            norms[batch, accumulation] = metrics[0].grad_norm
        assert losses[4, 2] == pytest.approx(losses[8, 1], rel=1e-5)
        assert norms[4, 2] == pytest.approx(norms[8, 1], rel=1e-4)
        assert losses[4, 1] != pytest.approx(losses[8, 1], rel=1e-3)

    def test_held_out_loss_does_not_depend_on_the_batch(
        self, tmp_path: Path, tiny_model: Path, tiny_data: Path
    ) -> None:
        losses = []
        for batch in (1, 4):
            job = tiny.job(per_device_eval_batch_size=batch, max_steps=1, logging_steps=1)
            run = tiny.run_here(tiny.prepare(tmp_path / str(batch), job, model=tiny_model, data=tiny_data))
            losses += [metric.loss for metric in run.metrics if metric.kind == "eval"]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)

    def test_gradient_checkpointing_changes_memory_not_the_loss(
        self, tmp_path: Path, tiny_model: Path, tiny_data: Path, finished: Callable[[ResolvedMethod], Run]
    ) -> None:
        plain = [metric.loss for metric in finished(FULL).metrics]
        job = tiny.job(gradient_checkpointing=True)
        run = tiny.run_here(tiny.prepare(tmp_path, job, model=tiny_model, data=tiny_data))
        assert run.environment.ran["gradient_checkpointing"] == "on"
        assert [metric.loss for metric in run.metrics] == pytest.approx(plain, rel=1e-4)

    def test_without_held_out_rows_there_is_no_evaluation(self, tmp_path: Path, tiny_model: Path) -> None:
        data = tiny.write_data(tmp_path / "data", held_out=0)
        work = tiny.prepare(tmp_path / "work", tiny.job(max_steps=3), model=tiny_model, data=data)
        run = tiny.run_here(work)
        assert run.result.exit_code == 0
        assert [(metric.kind, metric.step) for metric in run.metrics] == [("train", 2), ("train", 3)]

    def test_precision_bf16_is_what_runs(self, tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
        job = tiny.job(LORA, precision="bf16", max_steps=2)
        run = tiny.run_here(tiny.prepare(tmp_path, job, model=tiny_model, data=tiny_data))
        assert run.result.exit_code == 0
        assert (run.environment.ran["precision"], run.environment.ran["trained_dtype"]) == ("bf16", "float32")


class TestDiverged:
    def test_at_the_first_step(self, tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
        model = _with_weights(tiny_model, tmp_path / "model", {"model.norm.weight": math.nan})
        run = tiny.run_here(tiny.prepare(tmp_path / "work", tiny.job(save_steps=1), model=model, data=tiny_data))
        assert run.result.exit_code == ExitCode.DIVERGED
        assert "the loss is nan at step 1" in run.result.reason
        assert run.saved == {}
        assert not run.work.export.exists()

    def test_later_and_never_saved(self, tmp_path: Path, tiny_data: Path) -> None:
        rare = 40
        data = tmp_path / "data"
        rows = list(Dataset.from_file(str(tiny_data / "train.arrow")))
        rows[0] = {**rows[0], "input_ids": [rare, *rows[0]["input_ids"][1:]]}
        _copy(tiny_data, data)
        tiny.write_rows(data / "train.arrow", rows)
        whole = tiny.write_model(tmp_path / "whole", tied=False, vocab_size=tiny.VOCAB)
        model = _with_weights(whole, tmp_path / "model", {"model.embed_tokens.weight": math.nan}, row=rare)
        job = tiny.job(per_device_train_batch_size=1, save_steps=1, num_train_epochs=1.0)
        run = tiny.run_here(tiny.prepare(tmp_path / "work", job, model=model, data=data))
        assert run.result.exit_code == ExitCode.DIVERGED
        assert 0 < run.result.step < 24
        assert set(run.saved) == set(range(1, run.result.step + 1))
        assert f"at step {run.result.step + 1}" in run.result.reason

    def test_infinite_gradient_counts_as_well(self, tmp_path: Path, untied_model: Path, tiny_data: Path) -> None:
        """The loss of the step is finite, and its weights would already be lost."""
        model = _with_weights(untied_model, tmp_path / "model", {"model.norm.weight": 1e30, "lm_head.weight": 1e-32})
        job = tiny.job(save_steps=1)
        run = tiny.run_here(tiny.prepare(tmp_path / "work", job, model=model, data=tiny_data))
        assert run.result.exit_code == ExitCode.DIVERGED
        assert "the gradient's norm is" in run.result.reason
        assert run.saved == {}


class TestRefused:
    def test_other_number_of_processes(self, tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
        run = tiny.run_here(tiny.prepare(tmp_path, tiny.job(processes=2), model=tiny_model, data=tiny_data))
        assert run.result.exit_code == ExitCode.CONFIGURATION
        assert run.result.reason.startswith("launch: 1 processes started, 2 asked for")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_no_gpu(self, tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
        run = tiny.run_here(tiny.prepare(tmp_path, tiny.job(device="cuda"), model=tiny_model, data=tiny_data))
        assert run.result.exit_code == ExitCode.CONFIGURATION
        assert "launch.gpus_per_node: 0 GPUs are visible, 1 asked for" in run.result.reason

    def test_no_rows(self, tmp_path: Path, tiny_model: Path) -> None:
        run = tiny.run_here(tiny.prepare(tmp_path, tiny.job(), model=tiny_model, data=tmp_path / "nothing"))
        assert run.result.exit_code == ExitCode.INPUT
        assert "train.arrow: no prepared rows" in run.result.reason

    def test_no_job(self, tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
        work = tiny.prepare(tmp_path, tiny.job(), model=tiny_model, data=tiny_data)
        work.job.unlink()
        assert tiny.run_here(work).result.exit_code == ExitCode.INPUT

    def test_what_runs_is_not_what_was_asked_for(
        self, tmp_path: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        run = tiny.run_here(tiny.prepare(tmp_path, tiny.job(), model=tiny_model, data=tiny_data))
        assert run.result.exit_code == ExitCode.CONFIGURATION
        assert run.result.reason.startswith("training.precision: precision fp32 asked for, bf16 ran")
        assert run.environment.ran["precision"] == "bf16"
        assert run.saved == {}

    @pytest.mark.parametrize(
        ("facts", "rows", "reason"),
        [
            ({}, 24, ""),
            ({"intermediate_size": 96}, 24, ""),
            ({"intermediate_size": 128}, 24, r"^method: \d.* trainable parameters planned, 7,\d\d\d ran"),
            ({}, 23, "^data: train rows 23 asked for, 24 ran"),
        ],
        ids=["as planned", "written out", "another shape", "other rows"],
    )
    def test_the_planner_s_count_and_the_prepared_rows_are_what_runs(
        self, facts: dict[str, int], rows: int, reason: str, *, tmp_path: Path, tiny_model: Path, tiny_data: Path
    ) -> None:
        config = json.loads((tiny_model / "config.json").read_text())
        job = tiny.job(LORA, max_steps=1).model_copy(update={"facts": model_facts({**config, **facts})})
        work = tiny.prepare(tmp_path, job, model=tiny_model, data=tiny_data)
        given = RankInput.model_validate_json(work.rank_input.read_bytes())
        work.rank_input.write_bytes(given.model_copy(update={"train_rows": rows}).to_json())
        run = tiny.run_here(work)
        asked, ran = run.environment.asked, run.environment.ran
        assert int(asked["memory_bytes"]) > 0
        if not reason:
            assert run.result.exit_code == ExitCode.DONE, run.result.reason
            assert asked["trainable_parameters"] == ran["trainable_parameters"] == 7552
            return
        assert run.result.exit_code == ExitCode.CONFIGURATION
        assert re.search(reason, run.result.reason)

    def test_training_that_changes_nothing(self, tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
        job = tiny.job(max_steps=1, warmup_steps=1.0)
        run = tiny.run_here(tiny.prepare(tmp_path, job, model=tiny_model, data=tiny_data))
        assert run.result.exit_code == ExitCode.CONFIGURATION
        assert "training has changed no weight" in run.result.reason
        assert not run.work.exported.exists()

    def test_a_bug_is_one_line_and_code_70(self, tmp_path: Path, tiny_model: Path, tiny_data: Path) -> None:
        work = tiny.prepare(tmp_path, tiny.job(), model=tiny_model, data=tiny_data)
        run = tiny.run_here(work, fault="export:raise:1")
        assert (run.result.exit_code, run.result.step) == (ExitCode.CRASH, 12)
        assert run.result.reason == "InjectedFault: injected at export"
        assert not run.work.exported.exists()


class TestDiskFull:
    def test_leaves_nothing_half_written(
        self, tmp_path: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = torch.save

        def full_at_step_6(state: object, path: str) -> None:
            if "checkpoint-6" in path:
                raise OSError(errno.ENOSPC, "No space left on device", path)
            whole(state, path)

        monkeypatch.setattr(torch, "save", full_at_step_6)
        run = tiny.run_here(tiny.prepare(tmp_path, tiny.job(), model=tiny_model, data=tiny_data))
        assert (run.result.exit_code, run.result.step) == (ExitCode.DISK_FULL, 6)
        assert [path.name for path in run.work.checkpoints.glob("checkpoint-*")] == ["checkpoint-3"]
        assert set(run.saved) == {3}


class TestCheckpoint:
    def test_of_other_rows(self, tmp_path: Path, tiny_model: Path, finished: Callable[[ResolvedMethod], Run]) -> None:
        data = tiny.write_data(tmp_path / "data", rows=20)
        resume = finished(FULL).work.checkpoint(6)
        run = tiny.run_here(tiny.prepare(tmp_path / "work", tiny.job(), model=tiny_model, data=data, resume=resume))
        assert run.result.exit_code == ExitCode.CONFIGURATION
        assert "trained on 24 rows, the data have 20" in run.result.reason

    def test_that_lacks_weights(
        self,
        tmp_path: Path,
        tiny_model: Path,
        tiny_data: Path,
        finished: Callable[[ResolvedMethod], Run],
    ) -> None:
        resume = _copy(finished(FULL).work.checkpoint(6), tmp_path / "checkpoint-6")
        weights = load_file(resume / "model.safetensors")
        del weights["model.norm.weight"]
        save_file(weights, resume / "model.safetensors", metadata={"format": "pt"})
        work = tiny.prepare(tmp_path / "work", tiny.job(), model=tiny_model, data=tiny_data, resume=resume)
        run = tiny.run_here(work)
        assert run.result.exit_code == ExitCode.CONFIGURATION
        assert "model.norm.weight" in run.result.reason

    def test_whose_step_is_not_the_trainers(
        self,
        tmp_path: Path,
        tiny_model: Path,
        tiny_data: Path,
        finished: Callable[[ResolvedMethod], Run],
    ) -> None:
        resume = _copy(finished(FULL).work.checkpoint(6), tmp_path / "checkpoint-6")
        (resume / "sftjob_state.json").write_bytes(LedgerState(step=5, train_rows=24).to_json())
        work = tiny.prepare(tmp_path / "work", tiny.job(), model=tiny_model, data=tiny_data, resume=resume)
        run = tiny.run_here(work)
        assert run.result.exit_code == ExitCode.CONFIGURATION
        assert "would go on at step 6, the checkpoint is of step 5" in run.result.reason


def _copy(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for path in source.rglob("*"):
        copied = target / path.relative_to(source)
        copied.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            copied.write_bytes(path.read_bytes())
    return target


def _with_weights(source: Path, target: Path, values: dict[str, float], *, row: int | None = None) -> Path:
    """A copy of a model with one number in the whole of some weights, or in one row of them."""
    _copy(source, target)
    weights = load_file(target / "model.safetensors")
    for name, value in values.items():
        (weights[name] if row is None else weights[name][row]).fill_(value)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target
