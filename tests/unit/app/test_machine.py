import stat
from pathlib import Path

import pytest

from sftjob.app.machine import local_gpus, visible

LISTED = "0, GPU-aa11, NVIDIA H100 80GB HBM3\n1, GPU-bb22, NVIDIA H100 80GB HBM3\n"
H100 = "NVIDIA-H100-80GB-HBM3"


class TestVisible:
    @pytest.mark.parametrize(
        ("chosen", "count"),
        [(None, 2), ("0,1", 2), ("1", 1), ("GPU-bb", 1), ("", 0), ("-1", 0), ("7", 0)],
        ids=["unset", "both", "by index", "by uuid", "empty", "none", "absent"],
    )
    def test_follows_cuda_visible_devices(self, chosen: str | None, count: int) -> None:
        assert visible(LISTED, chosen) == [H100] * count

    def test_noise_is_no_gpu(self) -> None:
        assert visible("No devices were found\n", None) == []


class TestLocalGpus:
    def test_a_machine_without_driver_has_none(self, tmp_path: Path) -> None:
        assert local_gpus({"PATH": str(tmp_path)}) == []

    def test_asks_nvidia_smi(self, tmp_path: Path) -> None:
        program(tmp_path, f"cat <<'E'\n{LISTED}E")
        assert local_gpus({"PATH": str(tmp_path)}) == [H100, H100]

    def test_a_broken_driver_counts_as_none(self, tmp_path: Path) -> None:
        program(tmp_path, "echo 'driver mismatch' >&2; exit 9")
        assert local_gpus({"PATH": str(tmp_path)}) == []


def program(folder: Path, body: str) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
