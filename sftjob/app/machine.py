"""What this machine has to train on, asked without importing torch."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import Final

_TIMEOUT_SECONDS: Final = 20
_QUERY: Final = ("--query-gpu=index,uuid,name", "--format=csv,noheader")


def local_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Product names of the GPUs that a process started here would see, as `nvidia.com/gpu.product` writes them.

    Asks nvidia-smi and honours CUDA_VISIBLE_DEVICES. A machine without a working driver has none.
    """
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        return []
    try:
        listed = subprocess.run(
            [program, *_QUERY], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=True
        ).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    return visible(listed, environment.get("CUDA_VISIBLE_DEVICES"))


def visible(listed: str, chosen: str | None) -> list[str]:
    """Names out of nvidia-smi's `index, uuid, name` lines, cut to CUDA_VISIBLE_DEVICES (None: all)."""
    rows = [[part.strip() for part in line.split(",", 2)] for line in listed.splitlines() if line.count(",") >= 2]
    if chosen is not None:
        wanted = [word.strip() for word in chosen.split(",")]
        rows = [row for row in rows if row[0] in wanted or any(word and row[1].startswith(word) for word in wanted)]
    return [name.replace(" ", "-") for _index, _uuid, name in rows]
