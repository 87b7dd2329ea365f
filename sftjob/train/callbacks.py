"""What happens around each step: numbers are booked, checkpoints are marked, requests to stop are heard."""

from collections.abc import Callable

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sftjob.errors import ConfigurationError
from sftjob.train.fault import fault
from sftjob.train.ledger import StepSums
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
