"""An attempt that goes on where another ended gives the same bits as one that was never interrupted."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sftjob.contract import ExitCode
from sftjob.resolve import ResolvedJob
from sftjob.resolved import ResolvedMethod
from sftjob.train import callbacks
from sftjob.train.workdir import WorkDir
from tests.train import tiny
from tests.train.tiny import FULL, LORA, QLORA, Run

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore")]
EACH = pytest.mark.parametrize("method", [FULL, LORA, QLORA], ids=["full", "lora", "qlora"])
Finished = Callable[[ResolvedMethod], Run]


@dataclass(frozen=True)
class Bench:
    """Where attempts are made, one folder each."""

    root: Path
    model: Path
    data: Path

    def prepare(self, name: str, job: ResolvedJob, **options: Any) -> WorkDir:
        return tiny.prepare(self.root / name, job, model=self.model, data=self.data, **options)

    def go_on(self, job: ResolvedJob, before: Run, step: int) -> Run:
        return tiny.run_here(self.prepare("next", job, resume=before.work.checkpoint(step), attempt=2))


@pytest.fixture
def bench(tmp_path: Path, tiny_model: Path, tiny_data: Path) -> Bench:
    return Bench(tmp_path, tiny_model, tiny_data)


def _assert_same(whole: Run, *parts: Run) -> None:
    """The last attempt's weights and all attempts' metrics, those after a checkpoint from the attempt that kept it."""
    assert parts[-1].result.exit_code == ExitCode.DONE, parts[-1].result.reason
    assert parts[-1].weights() == whole.weights()
    for kind in ("train", "eval"):
        seen: dict[int, tuple[Any, ...]] = {}
        for part in parts:
            for line in part.metrics if part.work.metrics.exists() else []:
                if line.kind == kind:
                    seen[line.step] = (line.loss_hex, line.tokens_seen, line.trained_tokens_seen, line.learning_rate)
        expected = {
            line.step: (line.loss_hex, line.tokens_seen, line.trained_tokens_seen, line.learning_rate)
            for line in whole.metrics
            if line.kind == kind
        }
        assert seen == expected


class TestCrash:
    @EACH
    @pytest.mark.parametrize(("crash", "checkpoint"), [(5, 3), (7, 6), (11, 9)], ids=["epoch1", "boundary", "epoch2"])
    def test_resume_is_exact(
        self,
        method: ResolvedMethod,
        crash: int,
        checkpoint: int,
        bench: Bench,
        finished: Finished,
    ) -> None:
        first = tiny.interrupted_after(bench.prepare("first", tiny.job(method)), crash)
        assert (first.result.exit_code, first.result.step) == (ExitCode.CRASH, crash)
        assert max(first.saved) == checkpoint
        second = bench.go_on(tiny.job(method), first, checkpoint)
        _assert_same(finished(method), first, second)
        assert second.metrics[0].attempt == 2
        assert (second.metrics[-1].seconds or 0) > (first.metrics[0].seconds or 0)

    def test_after_a_real_kill(self, bench: Bench, finished: Finished) -> None:
        work = bench.prepare("first", tiny.job(LORA))
        first = tiny.run_apart(work, fault="step:kill:5")
        assert (first.returncode, first.results) == (-9, ())
        _assert_same(finished(LORA), first, bench.go_on(tiny.job(LORA), first, 3))

    def test_at_the_last_step_nothing_is_trained_again(self, bench: Bench) -> None:
        """Step 10 of 12 is within an epoch: Trainer would go on to step 11."""
        job = tiny.job(max_steps=10)
        whole = tiny.run_here(bench.prepare("first", job))
        again = bench.go_on(job, whole, 10)
        assert (again.result.exit_code, again.result.step) == (ExitCode.DONE, 10)
        assert again.weights() == whole.weights()
        assert again.held_out == whole.held_out[-1:]

    def test_of_fused_experts(self, tmp_path: Path, tiny_data: Path) -> None:
        bench = Bench(tmp_path, tiny.write_experts(tmp_path / "model"), tiny_data)
        whole = tiny.run_here(bench.prepare("whole", tiny.job()))
        assert whole.result.exit_code == ExitCode.DONE, whole.result.reason
        first = tiny.interrupted_after(bench.prepare("first", tiny.job()), 5)
        _assert_same(whole, first, bench.go_on(tiny.job(), first, 3))


class TestPreempt:
    @pytest.mark.parametrize(("asked", "saved"), [(6, 7), (3, 4), (12, 12)], ids=["mid", "instead-of-eval", "last"])
    def test_saves_stops_and_goes_on(
        self,
        asked: int,
        saved: int,
        bench: Bench,
        finished: Finished,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        work = bench.prepare("first", tiny.job(LORA))
        monkeypatch.setattr(callbacks, "fault", _touching(work.preempt, asked))
        first = tiny.run_here(work)
        assert (first.result.exit_code, first.result.step) == (ExitCode.INTERRUPTED, saved)
        assert saved in first.saved
        assert not work.exported.exists()
        second = bench.go_on(tiny.job(LORA), first, saved)
        _assert_same(finished(LORA), first, second)

    def test_during_the_held_out_loss(self, bench: Bench, finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
        work = bench.prepare("first", tiny.job(LORA))
        monkeypatch.setattr(callbacks, "fault", _touching(work.preempt, 4))
        first = tiny.run_here(work)
        assert (first.result.exit_code, first.result.step) == (ExitCode.INTERRUPTED, 4)
        assert (4 in first.saved, first.held_out) == (True, [])
        _assert_same(finished(LORA), first, bench.go_on(tiny.job(LORA), first, 4))

    def test_before_the_first_step(self, bench: Bench, finished: Finished) -> None:
        fresh = bench.prepare("first", tiny.job(LORA))
        fresh.preempt.touch()
        run = tiny.run_here(fresh)
        assert (run.result.exit_code, run.saved) == (ExitCode.INTERRUPTED_UNSAVED, {})
        resume = finished(LORA).work.checkpoint(6)
        resumed = bench.prepare("second", tiny.job(LORA), resume=resume)
        resumed.preempt.touch()
        run = tiny.run_here(resumed)
        assert (run.result.exit_code, run.result.step, run.saved) == (ExitCode.INTERRUPTED, 6, {})


class TestTwoRanks:
    def test_agree_on_the_step_and_go_on_exactly(self, bench: Bench) -> None:
        """Under torchrun without a stop; on two nodes, of which one is asked to stop; under torchrun from there."""
        job = _long_job(processes=2, rows=2)
        whole = tiny.run_apart(bench.prepare("whole", job), processes=2)
        assert [result.exit_code for result in whole.results] == [0, 0], whole.output
        assert (whole.environment.ran["world_size"], whole.environment.ran["rows_per_step"]) == (2, 4)
        assert whole.saved[60] == {0, 1}
        _assert_alike(whole, tiny.run_here(bench.prepare("alone", _long_job(processes=1, rows=4))))

        works = [bench.prepare(f"node-{node}", job, node=node) for node in (0, 1)]
        nodes = tiny.run_on_nodes(works, lambda: _preempt_after_step_3(works[1]))
        assert [node.returncode for node in nodes] == [ExitCode.INTERRUPTED] * 2, nodes[0].output + nodes[1].output
        step = nodes[0].result.step
        assert 3 <= step < 60
        assert [node.result.step for node in nodes] == [step, step]
        assert [step in node.saved for node in nodes] == [True, True]
        assert not works[1].metrics.exists()

        shutil.copytree(works[1].checkpoint(step), works[0].checkpoint(step), dirs_exist_ok=True)
        second = tiny.run_apart(bench.prepare("next", job, resume=works[0].checkpoint(step)), processes=2)
        _assert_same(whole, nodes[0], second)


def _long_job(*, processes: int, rows: int) -> ResolvedJob:
    """60 steps of 4 rows, so that there is time to ask for a stop."""
    training = {"per_device_train_batch_size": rows, "num_train_epochs": 10.0, "logging_steps": 7}
    return tiny.job(LORA, processes=processes, **training)


def _assert_alike(two_ranks: Run, alone: Run) -> None:
    """The same rows a step. Dropout differs between ranks, so their paths part slowly."""

    def counted(run: Run) -> list[tuple[int, int | None, int | None]]:
        return [(line.step, line.tokens_seen, line.trained_tokens_seen) for line in run.metrics]

    assert counted(two_ranks) == counted(alone)
    early = [next(line for line in run.metrics if line.kind == "train") for run in (two_ranks, alone)]
    assert early[0].loss == pytest.approx(early[1].loss, rel=0.02)
    assert early[0].grad_norm == pytest.approx(early[1].grad_norm, rel=0.2)


def _touching(path: Path, step: int) -> Callable[[str], None]:
    """Stands for `fault`, and asks for a stop right after step `step` has been booked."""
    reached = 0

    def strike(point: str) -> None:
        nonlocal reached
        reached += point == "step"
        if point == "step" and reached == step:
            path.touch()

    return strike


def _preempt_after_step_3(work: WorkDir) -> None:
    tiny.wait_for(work.saved(3, 0))
    work.preempt.touch()
