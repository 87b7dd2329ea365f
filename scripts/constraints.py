#!/usr/bin/env python3
"""Writes the versions installed in `.venv` into constraints.txt, without local suffixes and without addresses."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INSTALLERS = ("pip", "setuptools", "uv", "wheel")
PLATFORM = ("nvidia-", "cuda-", "triton")
EVERYWHERE = "nvidia-ml-py=="
"""Reads GPUs, and installs where there are none."""
HEADER = "# Versions that the tests have passed with. Made by `make constraints`; ranges are in pyproject.toml."


def main() -> int:
    uv = Path(sys.executable).parent / "uv"
    frozen = subprocess.run([uv, "pip", "freeze", "--exclude-editable"], capture_output=True, text=True, check=True)
    pins = [line.partition("+")[0] for line in frozen.stdout.splitlines() if "==" in line]
    left_out = (*PLATFORM, *(f"{name}==" for name in INSTALLERS))
    kept = [pin for pin in pins if pin.startswith(EVERYWHERE) or not pin.startswith(left_out)]
    (ROOT / "constraints.txt").write_text("\n".join([HEADER, *kept, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
