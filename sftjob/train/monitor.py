"""What the machine says while it trains: GPUs through NVML, host memory and CPU from the kernel. No torch here.

Read when a line of metrics is written, which costs well under a millisecond a GPU: no thread competes with training.
Whatever cannot be read is left out without a word.
"""

import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from sftjob.records import Reading

_CGROUP: Final = Path("/sys/fs/cgroup")
_PROC: Final = Path("/proc")


class Monitor:
    """Takes readings of one node."""

    def __init__(
        self,
        gpus: Sequence[str] = (),
        *,
        nvml: Any = None,
        host: "Host | None" = None,
    ) -> None:
        """Opens NVML where there is a GPU to watch.

        Args:
            gpus: their UUIDs as NVML writes them, `GPU-…`; torch numbers GPUs in another order than NVML.
            nvml: the module `pynvml`; imported if not given.
            host: where the kernel's files are.
        """
        self._host = host or Host()
        self._nvml: Any = None
        self._handles: list[Any] = []
        if gpus:
            self._open(gpus, nvml)

    def read(self) -> Reading:
        """The node as it is now; raises nothing."""
        gpus = [self._gpu(handle) for handle in self._handles]
        memory, utilisation, power, temperature = (
            [gpu[index] for gpu in gpus if gpu[index] is not None] for index in range(4)
        )
        used, limit = self._host.memory()
        return Reading(
            gpu_memory_bytes=max(memory, default=None),
            gpu_utilisation_percent=sum(utilisation) / len(utilisation) if utilisation else None,
            gpu_power_watts=sum(power) / 1000 if power else None,  # NVML counts milliwatts
            gpu_temperature_celsius=max(temperature, default=None),
            host_cpu_percent=self._host.cpu_percent(),
            host_memory_bytes=used,
            host_memory_limit_bytes=limit,
        )

    def _open(self, gpus: Sequence[str], nvml: Any) -> None:
        try:
            self._nvml = nvml or import_module("pynvml")
            self._nvml.nvmlInit()
            self._handles = [self._nvml.nvmlDeviceGetHandleByUUID(gpu) for gpu in gpus]
        except Exception:  # no driver, no package, no permission: training needs none of them
            self._handles = []

    def _gpu(self, handle: Any) -> tuple[Any, Any, Any, Any]:
        nvml = self._nvml
        return (
            _tried(lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used)),
            _tried(lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
            _tried(lambda: float(nvml.nvmlDeviceGetPowerUsage(handle))),
            _tried(lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
        )


class Host:
    """Memory and CPU of a pod by its cgroup (version 2), or of the whole machine where no cgroup limits them."""

    def __init__(
        self, *, cgroup: Path = _CGROUP, proc: Path = _PROC, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._proc = proc
        self._clock = clock
        own = own_cgroup(_text(proc / "self/cgroup"))
        self._cgroup = cgroup / own if (cgroup / own).is_dir() else cgroup
        self._before = self._cpu()

    def memory(self) -> tuple[int | None, int | None]:
        """Bytes used, and bytes at which the kernel kills."""
        limit = _text(self._cgroup / "memory.max").strip()
        current = _text(self._cgroup / "memory.current").strip()
        if limit.isdigit() and current.isdigit():
            return int(current) - inactive_file_bytes(_text(self._cgroup / "memory.stat")), int(limit)
        return meminfo_bytes(_text(self._proc / "meminfo"))

    def cpu_percent(self) -> float | None:
        """Busy share since the call before; None where no time has passed."""
        before, self._before = self._before, self._cpu()
        if before is None or self._before is None or self._before[1] <= before[1]:
            return None
        busy, had = self._before[0] - before[0], self._before[1] - before[1]
        return max(0.0, min(100.0, 100 * busy / had))

    def _cpu(self) -> tuple[float, float] | None:
        """Busy CPU time and CPU time to be had, in one unit, counted from some moment."""
        cores = quota_cores(_text(self._cgroup / "cpu.max"))
        used = usage_seconds(_text(self._cgroup / "cpu.stat"))
        if cores is not None and used is not None:
            return used, cores * self._clock()
        return busy_and_total(_text(self._proc / "stat"))


def own_cgroup(text: str) -> str:
    """/proc/self/cgroup → the process's folder below /sys/fs/cgroup; empty at the top, as seen in a container."""
    paths = (line.removeprefix("0::") for line in text.splitlines() if line.startswith("0::"))
    path = next(paths, "/").strip("/")
    return "" if ".." in path.split("/") else path


def inactive_file_bytes(text: str) -> int:
    """memory.stat → cache that the kernel drops before it kills, as the kubelet counts it."""
    return int(_pairs(text).get("inactive_file", 0))


def meminfo_bytes(text: str) -> tuple[int | None, int | None]:
    """/proc/meminfo → bytes that cannot be had any more, and all; None each where it says nothing."""
    kib = {name.rstrip(":"): value for name, value in _pairs(text).items()}
    if not {"MemTotal", "MemAvailable"} <= kib.keys():
        return None, None
    return int(kib["MemTotal"] - kib["MemAvailable"]) * 1024, int(kib["MemTotal"]) * 1024


def quota_cores(text: str) -> float | None:
    """cpu.max → cores that the cgroup may use; None without a limit."""
    parts = text.split()
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        return None
    return int(parts[0]) / int(parts[1])


def usage_seconds(text: str) -> float | None:
    """cpu.stat → CPU seconds used so far."""
    used = _pairs(text).get("usage_usec")
    return None if used is None else used / 1e6


def busy_and_total(text: str) -> tuple[float, float] | None:
    """/proc/stat → ticks of all cores together: busy ones, and all. Guests' ticks are in the users' already."""
    line = next((line for line in text.splitlines() if line.startswith("cpu ")), "")
    ticks = [int(part) for part in line.split()[1:9]]
    if len(ticks) < 5:
        return None
    return float(sum(ticks) - ticks[3] - ticks[4]), float(sum(ticks))


def _pairs(text: str) -> dict[str, float]:
    """Lines of a name and a number; more on a line is a unit."""
    parts = (line.split() for line in text.splitlines())
    return {part[0]: float(part[1]) for part in parts if len(part) >= 2 and part[1].isdigit()}


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _tried(read: Callable[[], Any]) -> Any:
    """None where a GPU does not tell: some do not know their power, and MIG parts not their utilisation."""
    try:
        return read()
    except Exception:  # NVML's errors are of the module that was given
        return None
