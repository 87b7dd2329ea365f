from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sftjob.train import monitor
from sftjob.train.monitor import Host, Monitor


class Nvml:
    """Two GPUs; the second does not know its power."""

    NVML_TEMPERATURE_GPU = 0

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802 - NVML's name
        return {"GPU-a": 0, "GPU-b": 1}[uuid]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802 - NVML's name
        return SimpleNamespace(used=(30, 40)[handle])

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802 - NVML's name
        return SimpleNamespace(gpu=(90, 100)[handle])

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802 - NVML's name
        if handle:
            raise RuntimeError("Not Supported")
        return 350_500

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:  # noqa: N802 - NVML's name
        return (61, 58)[handle]


def host(root: Path, **files: str) -> Host:
    """A kernel with these files; `__` in a name is a folder."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Host(cgroup=root / "cgroup", proc=root / "proc", clock=lambda: 10.0)


class TestMonitor:
    def test_gpus_are_summed_up_and_what_one_does_not_tell_is_left_out(self, tmp_path: Path) -> None:
        reading = Monitor(["GPU-a", "GPU-b"], nvml=Nvml(), host=host(tmp_path)).read()
        assert reading.model_dump(exclude_none=True) == {
            "gpu_memory_bytes": 40,
            "gpu_utilisation_percent": 95.0,
            "gpu_power_watts": 350.5,
            "gpu_temperature_celsius": 61.0,
        }

    @pytest.mark.parametrize("gpus", [[], ["GPU-gone"]], ids=["no GPU", "not known"])
    def test_without_nvml_nothing_is_read_or_said(
        self, gpus: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert Monitor(gpus, nvml=Nvml(), host=host(tmp_path)).read().model_dump(exclude_none=True) == {}
        assert capsys.readouterr() == ("", "")

    def test_this_machine_has_memory(self) -> None:
        reading = Monitor().read()
        assert reading.host_memory_bytes is not None
        assert reading.host_memory_limit_bytes is not None
        assert 0 < reading.host_memory_bytes <= reading.host_memory_limit_bytes


class TestHost:
    def test_a_limited_pod_counts_what_the_kernel_kills_for(self, tmp_path: Path) -> None:
        pod = host(
            tmp_path,
            cgroup__memory_dot_max="1000\n",
            cgroup__memory_dot_current="700\n",
            cgroup__memory_dot_stat="anon 300\ninactive_file 150\n",
            proc__meminfo="MemTotal: 9 kB\nMemAvailable: 4 kB\n",
        )
        assert pod.memory() == (550, 1000)

    def test_a_group_without_a_limit_is_the_machine(self, tmp_path: Path) -> None:
        machine = host(
            tmp_path,
            cgroup__memory_dot_max="max\n",
            cgroup__memory_dot_current="700\n",
            proc__meminfo="MemTotal:  9 kB\nMemFree: 1 kB\nMemAvailable:  4 kB\n",
        )
        assert machine.memory() == (5 * 1024, 9 * 1024)

    def test_the_own_group_is_found(self, tmp_path: Path) -> None:
        own = host(
            tmp_path,
            proc__self__cgroup="0::/kubepods/x\n",
            cgroup__kubepods__x__memory_dot_max="8",
            cgroup__kubepods__x__memory_dot_current="2",
        )
        assert own.memory() == (2, 8)

    def test_busy_share_since_the_call_before(self, tmp_path: Path) -> None:
        machine = host(tmp_path, proc__stat="cpu  100 0 100 700 100 0 0 0 50 0\n")
        (tmp_path / "proc/stat").write_text("cpu  130 0 130 725 115 0 0 0 50 0\n")
        assert machine.cpu_percent() == pytest.approx(60.0)
        assert machine.cpu_percent() is None

    def test_a_quota_is_what_was_to_be_had(self, tmp_path: Path) -> None:
        now = [0.0]
        folder = tmp_path / "cgroup"
        folder.mkdir()
        (folder / "cpu.max").write_text("200000 100000\n")
        (folder / "cpu.stat").write_text("usage_usec 1000000\n")
        pod = Host(cgroup=folder, proc=tmp_path, clock=lambda: now[0])
        now[0] = 2.0
        (folder / "cpu.stat").write_text("usage_usec 2000000\n")
        assert pod.cpu_percent() == pytest.approx(25.0)


@pytest.mark.parametrize(
    ("text", "folder"), [("0::/\n", ""), ("12:cpu:/x\n0::/a/b\n", "a/b"), ("0::/../../x\n", ""), ("", "")]
)
def test_own_cgroup(text: str, folder: str) -> None:
    assert monitor.own_cgroup(text) == folder
