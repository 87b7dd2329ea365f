"""What a training tells while it runs."""

from typing import Literal

from sftjob.records.base import Record, Stored


class Metric(Stored):
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
    gpu_memory_bytes: int | None = None
    """Used on the fullest of the GPUs of rank 0's node, by every process; this and the following are of that moment."""
    gpu_utilisation_percent: float | None = None
    """Mean over the node's GPUs."""
    gpu_power_watts: float | None = None
    """Sum over the node's GPUs."""
    gpu_temperature_celsius: float | None = None
    """Of the node's hottest GPU."""
    host_cpu_percent: float | None = None
    """Of the CPU time that the pod or machine had since the line before."""
    host_memory_bytes: int | None = None
    """What counts towards an out-of-memory kill of the pod, or of the machine where no cgroup limits it."""
    host_memory_limit_bytes: int | None = None
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
