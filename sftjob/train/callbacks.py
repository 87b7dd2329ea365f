"""What happens around each step: numbers are booked and written, checkpoints are marked, requests to stop are heard."""

import resource
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sftjob.errors import ConfigurationError
from sftjob.records import Metric
from sftjob.storage.local import local_errors
from sftjob.train.fault import fault
from sftjob.train.ledger import Ledger, StepSums
from sftjob.train.trainer import RunTrainer, TrainingComplete
from sftjob.train.workdir import WorkDir


class RunCallback(TrainerCallback):  # type: ignore[misc] # untyped base class
    """Keeps the ledger, on every rank. Add it to the trainer after its construction, as the last one that decides."""

    def __init__(self, trainer: RunTrainer, work: WorkDir, begin: Callable[[], None]) -> None:
        """Watches `trainer`.

        Args:
            trainer: what to watch.
            work: gets the marks of complete checkpoints.
            begin: called before the first step, when everything is prepared.
        """
        self._trainer = trainer
        self._work = work
        self._begin = begin

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        ledger = self._trainer.ledger
        if state.global_step != ledger.state.step:
            raise ConfigurationError(
                f"training would go on at step {state.global_step}, the checkpoint is of step {ledger.state.step}",
                hint="start another run with --new-run",
            )
        self._begin()
        ledger.start_clock()
        if state.global_step >= state.max_steps:
            raise TrainingComplete

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        trainer = self._trainer
        *sums, grad_norm = trainer.tally.take()
        loss, tokens, trained_tokens, stop = trainer.gang.sum([*sums, trainer.gang.asked_to_stop()])
        trainer.ledger.finish_step(
            state.global_step, StepSums(loss, int(tokens), int(trained_tokens), grad_norm=grad_norm)
        )
        fault("step")
        if state.global_step >= state.max_steps:
            # The held-out loss follows when the last step is safe.
            control.should_log, control.should_save, control.should_evaluate = True, True, False
        if stop > 0:
            trainer.interrupted = True
            trainer.ledger.owe_evaluation(control.should_evaluate)
            control.should_save, control.should_training_stop, control.should_evaluate = True, True, False

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._trainer.ledger.start_clock()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        step, place = state.global_step, self._trainer.gang.place
        if place.first:
            self._trainer.ledger.save(self._work.checkpoint(step))
        self._work.saved(step, place.local_rank).touch()
        fault("saved")
        self._trainer.ledger.start_clock()


class MetricsWriter(TrainerCallback):  # type: ignore[misc] # untyped base class
    """Appends a line of metrics for every logged step and every held-out loss. For rank 0."""

    def __init__(self, path: Path, *, attempt: int, ledger: Ledger) -> None:
        """Writes to `path`, which may hold lines of earlier attempts."""
        self._path = path
        self._attempt = attempt
        self._ledger = ledger

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        if logs is not None and "loss" in logs:
            self._write(
                state,
                kind="train",
                loss=logs["loss"],
                learning_rate=logs.get("learning_rate"),
                grad_norm=logs.get("grad_norm"),
                tokens_per_second=logs.get("tokens_per_second"),
            )

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        if metrics is not None:
            self._write(state, kind="eval", loss=metrics["eval_loss"])

    def _write(self, state: TrainerState, *, loss: float, **fields: object) -> None:
        booked = self._ledger.state
        line = Metric.model_validate(
            {
                **fields,
                "attempt": self._attempt,
                "step": state.global_step,
                "epoch": state.epoch or 0.0,
                "loss": loss,
                "loss_hex": float(loss).hex(),
                "tokens_seen": booked.tokens_seen,
                "trained_tokens_seen": booked.trained_tokens_seen,
                "seconds": booked.seconds,
                "memory_bytes": _peak_memory_bytes(),
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            }
        )
        with local_errors(self._path), self._path.open("ab") as file:
            file.write(line.to_json() + b"\n")


def _peak_memory_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB
