"""Where lines of metrics go besides the store: TensorBoard's event files, Weights & Biases. No torch at import.

None of them may end a training: trouble is told in one line. W&B may not stall one either: it is talked to in a thread
of its own, whose queue drops what does not fit.
"""

import importlib.util
import netrc
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

from sftjob.errors import ConfigurationError
from sftjob.records import Metric
from sftjob.resolve import ResolvedJob
from sftjob.spec import Monitoring

OPEN: Final = "tensorboard-open"
"""Folder of the event file that is being written, in the work folder."""
CLOSED: Final = "tensorboard"
"""Folder of the event files that are whole and never change again."""
ROTATE_SECONDS: Final = 300.0
CLOSE_SECONDS: Final = 15.0
"""How long the end of a training waits for W&B; after SIGTERM it is taken from the grace period."""
_QUEUE: Final = 10_000
_ABOUT: Final = frozenset({"kind", "attempt", "step", "loss_hex", "time", "memory_kind"})
"""Fields of a line that are no curves."""
_WANDB_HOST: Final = "https://api.wandb.ai"
_WANDB_THREAD: Final = "sftjob-wandb"
_WANDB_SETTINGS: Final = {
    # It would pass on whatever a rank prints, and what a rank prints would wait for it.
    "console": "off",
    # A banner and a summary of twenty lines; we say where the run is ourselves.
    "silent": True,
}
_NO_ERROR_REPORTS: Final = "WANDB_ERROR_REPORTING"
"""Without it W&B sends errors, with what is around them, to an address of its own makers (wandb 0.29)."""


class Sink(Protocol):
    """Gets the lines of rank 0."""

    def write(self, line: Metric) -> None: ...

    def close(self) -> None: ...


def require(monitoring: Monitoring, environment: Mapping[str, str] = os.environ) -> None:
    """Checks before anything is loaded that what is asked for can be had.

    Raises:
        ConfigurationError: W&B's package or its key is missing.
    """
    if "wandb" not in monitoring.report_to:
        return
    if importlib.util.find_spec("wandb") is None:
        raise ConfigurationError(
            "the package wandb is missing", field="monitoring.report_to", hint="pip install 'sftjob[wandb]'"
        )
    online = environment.get("WANDB_MODE", "online") not in ("offline", "disabled", "dryrun")
    if online and not environment.get("WANDB_API_KEY") and not _in_netrc(environment):
        raise ConfigurationError(
            "no key for Weights & Biases",
            field="monitoring.report_to",
            hint="set WANDB_API_KEY here, or `wandb_secret` in the profile on a cluster",
        )


def open_sinks(monitoring: Monitoring, job: ResolvedJob, root: Path, attempt: int) -> list[Sink]:
    """What the spec asks for.

    Args:
        monitoring: of the spec.
        job: what runs; W&B shows it as the run's config. Secrets are never in it.
        root: the work folder.
        attempt: its number.
    """
    makers: dict[str, Callable[[], Sink]] = {
        "tensorboard": lambda: TensorBoard(root),
        "wandb": lambda: Wandb(monitoring, job, root, attempt),
    }
    return [makers[name]() for name in dict.fromkeys(monitoring.report_to)]


def left_behind() -> bool:
    """W&B has not answered in time. What it has registered with `atexit` would wait for it without end (wandb 0.29)."""
    return any(thread.name == _WANDB_THREAD for thread in threading.enumerate())


def scalars(line: Metric) -> dict[str, float]:
    """Curves of a line, `train/loss`, `eval/loss`, `machine/gpu_power_watts`, …"""
    values = {name: value for name, value in line.model_dump(exclude_none=True).items() if name not in _ABOUT}
    return {f"{_group(name, line.kind)}/{name}": float(value) for name, value in values.items()}


class TensorBoard:
    """Event files that are closed and moved every few minutes: whoever uploads them sees files that never change."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._open, self._closed = root / OPEN, root / CLOSED
        self._clock = clock
        self._since = clock()
        self._writer: Any = None
        self._failed = False

    def write(self, line: Metric) -> None:
        """Raises nothing: after the first trouble, of which one line tells, no more is written."""
        self._try(lambda: self._write(line))

    def close(self) -> None:
        """Closes the file; a later line opens another. Raises nothing, as `write`."""
        self._try(self._close)

    def _try(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except Exception as error:  # a full disk, mostly, which ends the training at its next checkpoint if it stays
            self._failed = True
            _tell("tensorboard", error)

    def _write(self, line: Metric) -> None:
        if self._writer is None:
            for folder in (self._open, self._closed):
                folder.mkdir(parents=True, exist_ok=True)
            self._writer = import_module("torch.utils.tensorboard").SummaryWriter(str(self._open))
            self._since = self._clock()
        for name, value in scalars(line).items():
            self._writer.add_scalar(name, value, line.step)
        if self._clock() - self._since >= ROTATE_SECONDS:
            self._close()

    def _close(self) -> None:
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        writer.close()
        for path in self._open.iterdir():
            path.replace(self._closed / path.name)


class Wandb:
    """One W&B run a run id: later attempts continue it. Its trouble is told once, and training goes on."""

    def __init__(
        self,
        monitoring: Monitoring,
        job: ResolvedJob,
        root: Path,
        attempt: int,
        *,
        wandb: Any = None,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        """Starts the thread; nothing here waits for a network.

        Args:
            monitoring: project and entity.
            job: the config.
            root: folder for W&B's own files.
            attempt: its number.
            wandb: the module; imported if not given.
            close_seconds: how long `close` waits at most.
        """
        self._settings = {
            "id": job.run_id,
            "name": job.run_id,
            "resume": "allow",
            "project": monitoring.wandb_project or "sftjob",
            "entity": monitoring.wandb_entity,
            "config": {**job.model_dump(mode="json"), "attempt": attempt},
            "dir": str(root),
            "settings": _WANDB_SETTINGS,
        }
        self._close_seconds = close_seconds
        self._lines: queue.Queue[Metric | None] = queue.Queue(_QUEUE)
        self._thread = threading.Thread(target=self._run, args=(wandb,), name=_WANDB_THREAD, daemon=True)
        self._thread.start()

    def write(self, line: Metric) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            return  # the line is in the store; W&B has been unreachable for thousands of them

    def close(self) -> None:
        """Waits a little for what is on its way."""
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(self._close_seconds)
        if self._thread.is_alive():
            print("wandb does not answer; training is done without it", flush=True)

    def _run(self, wandb: Any) -> None:
        try:
            os.environ.setdefault(_NO_ERROR_REPORTS, "false")
            wandb = wandb or import_module("wandb")
            run = wandb.init(**self._settings)
            print(f"wandb: {'offline' if run.offline else run.url}", flush=True)
            # Steps of our own: an attempt that continues repeats some, and W&B's counter only goes up.
            run.define_metric("step")
            run.define_metric("*", step_metric="step")
            while (line := self._lines.get()) is not None:
                run.log({**scalars(line), "step": line.step})
            run.finish()
        except Exception as error:  # whatever it is, training is worth more
            _tell("wandb", error)


def _tell(sink: str, error: Exception) -> None:
    print(f"{sink}: {' '.join(str(error).split())[:200]}; training goes on without it", flush=True)


def _group(name: str, kind: str) -> str:
    return "machine" if name.startswith(("gpu_", "host_", "memory_")) else kind


def _in_netrc(environment: Mapping[str, str]) -> bool:
    """W&B's own second place for the key, which `wandb login` writes."""
    path = environment.get("NETRC") or str(Path("~/.netrc").expanduser())
    host = environment.get("WANDB_BASE_URL", _WANDB_HOST).split("//")[-1].split("/")[0]
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
