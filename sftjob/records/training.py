"""What a training tells while it runs."""

from typing import Literal

from sftjob.records.base import Record, Stored


class Reading(Stored):
    """One look at rank 0's node; None where there was nothing to read."""

    gpu_memory_bytes: int | None = None
    """Used on the fullest of the run's GPUs there, by every process."""
    gpu_utilisation_percent: float | None = None
    """Mean over the GPUs of the share of the last moment (up to a second) in which a kernel ran."""
    gpu_power_watts: float | None = None
    """Of all GPUs together."""
    gpu_temperature_celsius: float | None = None
    """Of the hottest GPU."""
    host_cpu_percent: float | None = None
    """Of the CPU time that was to be had since the reading before."""
    host_memory_bytes: int | None = None
    """What an out-of-memory kill goes by: the cgroup's without reclaimable cache, or the machine's without a limit."""
    host_memory_limit_bytes: int | None = None


class Metric(Reading):
    """One line of metrics/<n>/<segment>.jsonl."""

    kind: Literal["train", "eval"] = "train"
    attempt: int
    step: int
    epoch: float
    loss: float
    loss_hex: str
    """`float.hex()` of the loss, for comparing runs bit by bit."""
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_seen: int | None = None
    """Non-padding tokens, all ranks, since step 0 of the run."""
    trained_tokens_seen: int | None = None
    tokens_per_second: float | None = None
    """Non-padding tokens a second over all ranks since the line before."""
    seconds: float | None = None
    """Training time since step 0 of the run, over all attempts."""
    memory_bytes: int | None = None
    """Peak so far of rank 0: device memory on a GPU, resident set on a CPU."""
    memory_kind: Literal["device", "resident"] | None = None
    """Which of the two `memory_bytes` is; None in lines of older versions."""
    time: str


class Environment(Record):
    """attempts/<n>/results/<index>.environment.json: what was asked for and what ran, at step 0."""

    attempt: int
    index: int = 0
    versions: dict[str, str]
    device: str
    device_count: int
    asked: dict[str, str | int | float]
    ran: dict[str, str | int | float]
