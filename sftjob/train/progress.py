"""How far training is, for people: a bar on a terminal, plain lines elsewhere. For rank 0."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta

from tqdm import tqdm  # type: ignore[import-untyped] # has no stubs
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sftjob.train.ledger import Ledger
from sftjob.train.metrics import peak_memory_bytes


class Progress(TrainerCallback):  # type: ignore[misc] # untyped base class
    """Prints to stdout, from where the supervisor passes it on."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        bar: bool,
        clock: Callable[[], float] = time.monotonic,
        memory: Callable[[], int] = peak_memory_bytes,
    ) -> None:
        """Follows `ledger`; `bar` needs a terminal at the other end. `memory` is the peak in bytes."""
        self._ledger = ledger
        self._clock = clock
        self._memory = memory
        self._first: tuple[int, float] | None = None
        self._wants_bar = bar
        self._bar: tqdm | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self._wants_bar:
            self._bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc="training", unit="step", file=sys.stdout
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        # The first steps are slow, and no pause is in them: what has passed is counted from the first line on.
        self._first = self._first or (state.global_step, self._clock())
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {logs['loss']:.4f}")
            return
        left = self._left(state)
        speed = logs.get("tokens_per_second")
        self._say(
            f"step {state.global_step}/{state.max_steps} loss {logs['loss']:.4f} lr {logs['learning_rate']:.1e}"
            f"{'' if speed is None else f' {speed:.0f} tok/s'} {self._memory() / 2**30:.1f} GiB ETA {left}"
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
            self._say(f"step {state.global_step}/{state.max_steps} held-out loss {metrics['eval_loss']:.4f}")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        self._say(f"step {state.global_step}/{state.max_steps} checkpoint written")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def _left(self, state: TrainerState) -> timedelta | str:
        """Training time and, at their rate so far, the pauses between steps for held-out losses and checkpoints."""
        per_step = self._ledger.seconds_per_step
        if not per_step or self._first is None:
            return "?"
        step, seconds = self._first
        done = state.global_step - step
        # From the second line on, the time that has really passed; it is never less than that of the steps alone.
        per_step = max(per_step, (self._clock() - seconds) / done) if done > 0 else per_step
        return timedelta(seconds=round((state.max_steps - state.global_step) * per_step))

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stdout)
        else:
            print(line, flush=True)
