"""What a command costs: requests to the API server, seconds, and peak memory. For ours and for kubectl alike."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_COUNTED: Final = """
import atexit, os, sys
from urllib3.connectionpool import HTTPConnectionPool
asked, original = [], HTTPConnectionPool.urlopen
def urlopen(self, method, url, *rest, **more):
    if str(self.port) == os.environ["API_PORT"]:
        asked.append(method + " " + url)
    return original(self, method, url, *rest, **more)
HTTPConnectionPool.urlopen = urlopen
def tell():
    with open(os.environ["REQUESTS"], "w") as file:
        print(*asked, sep="\\n", file=file)
atexit.register(tell)
from sftjob.cli import main
sys.exit(main())
"""
"""Our command line in a process that notes its requests; those to the store have another port."""
_KUBECTL_REQUEST: Final = re.compile(r'\b(GET|POST|PUT|PATCH|DELETE)"? (?:url=")?https?://[^/"\s]+([^"\s]*)')
"""In what `kubectl --v=6` says of each answer."""


_HELPER: Final = """
import json, os, sys, time
begin = time.monotonic()
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    json.dump({"seconds": time.monotonic() - begin, "peak_kb": usage.ru_maxrss}, file)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A small parent: Linux counts the memory of the process that has started another one towards its peak."""


@dataclass(frozen=True)
class Cost:
    requests: list[str]
    """Method and path."""
    seconds: float
    peak_mb: float
    """Resident set size of the process, in units of 2^20 bytes."""
    output: str
    """Of both streams."""
    code: int

    def __str__(self) -> str:
        return f"{len(self.requests)} requests, {self.seconds:.1f} s, {self.peak_mb:.0f} MB"


@dataclass(frozen=True)
class Running:
    """A command that has been started."""

    process: "subprocess.Popen[bytes]"
    folder: "tempfile.TemporaryDirectory[str]"
    ours: bool

    def cost(self, *, seconds: float = 300) -> Cost:
        """What it has cost at its end; one that does not end in time fails."""
        try:
            code = self.process.wait(seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        with self.folder as name:
            folder = Path(name)
            usage = json.loads((folder / "usage").read_text())
            output = (folder / "output").read_text(errors="replace")
            requests = (folder / "requests").read_text().splitlines() if self.ours else _of_kubectl(output)
        return Cost(requests, usage["seconds"], usage["peak_kb"] / 1024, output, code)


def sftjob(kubeconfig: Path, api_port: int, *arguments: str, environment: Mapping[str, str] | None = None) -> Running:
    """Starts our command line."""
    settings = {"KUBECONFIG": str(kubeconfig), "API_PORT": str(api_port), **(environment or {})}
    return _started([sys.executable, "-c", _COUNTED, *arguments], settings, ours=True)


def kubectl(kubeconfig: Path, *arguments: str) -> Running:
    """Starts kubectl, which tells its requests itself."""
    return _started(["kubectl", f"--kubeconfig={kubeconfig}", "--v=6", *arguments], {}, ours=False)


def _started(command: list[str], settings: Mapping[str, str], *, ours: bool) -> Running:
    folder = tempfile.TemporaryDirectory()
    helper = [sys.executable, "-S", "-E", "-c", _HELPER, f"{folder.name}/usage"]
    environment = {**os.environ, **settings, "REQUESTS": f"{folder.name}/requests"}
    with Path(folder.name, "output").open("wb") as output:
        process = subprocess.Popen(
            [*helper, *command], env=environment, stdout=output, stderr=output, start_new_session=True
        )
    return Running(process, folder, ours)


def _of_kubectl(log: str) -> list[str]:
    return [f"{method} {path}" for method, path in _KUBECTL_REQUEST.findall(log)]
