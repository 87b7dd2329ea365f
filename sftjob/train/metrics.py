"""Metrics of rank 0: a line for every logged step and every held-out loss, also for whoever else wants to see them."""

import resource
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sftjob.records import Metric
from sftjob.storage.local import local_errors
from sftjob.train.ledger import Ledger
from sftjob.train.monitor import Monitor
from sftjob.train.sinks import Sink


class MetricsWriter(TrainerCallback):  # type: ignore[misc] # untyped base class
    """Appends lines to the metrics' file, and passes each on. For rank 0."""

    def __init__(
        self, path: Path, *, attempt: int, ledger: Ledger, monitor: Monitor, sinks: Sequence[Sink] = ()
    ) -> None:
        """Writes to `path`, which may hold lines of earlier attempts.

        Args:
            path: the file.
            attempt: its number.
            ledger: what the run has done.
            monitor: of this node.
            sinks: get every line when it is in the file.
        """
        self._path = path
        self._attempt = attempt
        self._ledger = ledger
        self._monitor = monitor
        self._sinks = sinks

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
                **self._monitor.read().model_dump(),
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
                "memory_bytes": peak_memory_bytes(),
                "memory_kind": "device" if torch.cuda.is_available() else "resident",
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            }
        )
        with local_errors(self._path), self._path.open("ab") as file:
            file.write(line.to_json() + b"\n")
        for sink in self._sinks:
            sink.write(line)


def peak_memory_bytes() -> int:
    """Most bytes so far: of tensors on the GPU, or resident where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts KiB


def visible_gpus() -> list[str]:
    """UUIDs of the GPUs that this process sees, as NVML writes them."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"GPU-{torch.cuda.get_device_properties(index).uuid}" for index in range(count)]
