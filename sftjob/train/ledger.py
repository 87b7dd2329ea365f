"""What a run has done so far, exactly and over all attempts: losses, tokens, seconds. A checkpoint carries it along.

Nothing here knows torch: numbers arrive summed over micro-batches and ranks.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from sftjob.errors import ConfigurationError, Diverged
from sftjob.records import Record
from sftjob.storage.local import placing

STATE_FILE: Final = "sftjob_state.json"


class LedgerState(Record):
    """sftjob_state.json in a checkpoint folder. Python writes floats so that they come back bit for bit."""

    step: int = 0
    """Last finished optimizer step."""
    train_rows: int
    seconds: float = 0.0
    """Training time; evaluation, saving and loading are not in it."""
    tokens_seen: int = 0
    """Non-padding tokens, all ranks."""
    trained_tokens_seen: int = 0
    window_loss: float = 0.0
    """Sum of the losses of the steps since the last line of metrics."""
    window_steps: int = 0
    evaluation_owed: bool = False
    """The held-out loss of this step was skipped to save in time."""


@dataclass(frozen=True)
class StepSums:
    """One optimizer step, summed over its micro-batches and over all ranks."""

    loss: float
    """Sum of the negative log-likelihoods of all trained tokens."""
    tokens: int
    """Non-padding tokens."""
    trained_tokens: int
    """Positions with a label."""
    grad_norm: float
    """Before clipping."""


@dataclass(frozen=True)
class Window:
    """The steps since the last line of metrics."""

    loss: float
    """Mean over steps of the mean loss per trained token."""
    tokens_per_second: float | None
    """None where no time has passed since the attempt began."""


class Ledger:
    """Adds up the steps of a run. Every rank keeps the same one."""

    def __init__(self, state: LedgerState, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = state
        self._clock = clock
        self._mark = clock()
        self._window_tokens = 0
        self._window_seconds = 0.0
        self._attempt_seconds = 0.0
        self._attempt_steps = 0

    @property
    def seconds_per_step(self) -> float | None:
        """Mean of this attempt."""
        return self._attempt_seconds / self._attempt_steps if self._attempt_steps else None

    def start_clock(self) -> None:
        """Call after whatever must not count as training: loading, evaluation, saving."""
        self._mark = self._clock()

    def finish_step(self, step: int, sums: StepSums) -> None:
        """Books a step.

        Raises:
            Diverged: its loss or its gradient is not finite. Nothing is booked.
        """
        loss = sums.loss / max(sums.trained_tokens, 1)
        if not (math.isfinite(loss) and math.isfinite(sums.grad_norm)):
            what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {sums.grad_norm}"
            raise Diverged(
                f"{what} at step {step}",
                field="training.learning_rate",
                hint="lower it or lengthen training.warmup_steps; if step 1 diverges, the base model has bad weights",
            )
        seconds = self._clock() - self._mark
        self.start_clock()
        self._window_tokens += sums.tokens
        self._window_seconds += seconds
        self._attempt_seconds += seconds
        self._attempt_steps += 1
        self.state = self.state.model_copy(
            update={
                "step": step,
                "seconds": self.state.seconds + seconds,
                "tokens_seen": self.state.tokens_seen + sums.tokens,
                "trained_tokens_seen": self.state.trained_tokens_seen + sums.trained_tokens,
                "window_loss": self.state.window_loss + loss,
                "window_steps": self.state.window_steps + 1,
            }
        )

    def close_window(self) -> Window:
        """The steps since the last call; begins a new window."""
        state = self.state
        window = Window(
            loss=state.window_loss / max(state.window_steps, 1),
            tokens_per_second=self._window_tokens / self._window_seconds if self._window_seconds > 0 else None,
        )
        self._window_tokens, self._window_seconds = 0, 0.0
        self.state = state.model_copy(update={"window_loss": 0.0, "window_steps": 0})
        return window

    def owe_evaluation(self, owed: bool) -> None:
        self.state = self.state.model_copy(update={"evaluation_owed": owed})

    def save(self, folder: Path) -> None:
        with placing(folder / STATE_FILE) as file:
            file.write(self.state.to_json())


def read_ledger(folder: Path, *, train_rows: int) -> LedgerState:
    """The state of a checkpoint.

    Args:
        folder: the checkpoint.
        train_rows: rows that this attempt trains on.

    Raises:
        ConfigurationError: `folder` is not a checkpoint of ours, or was trained on another number of rows.
    """
    path = folder / STATE_FILE
    hint = "start another run with --new-run"
    try:
        state = LedgerState.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError) as error:
        raise ConfigurationError("not a checkpoint of this program", file=str(path), hint=hint) from error
    if state.train_rows != train_rows:
        raise ConfigurationError(
            f"the checkpoint was trained on {state.train_rows} rows, the data have {train_rows}",
            file=str(path),
            hint=hint,
        )
    return state
