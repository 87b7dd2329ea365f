"""`kubectl port-forward` that is there while a block runs, also when the pod behind it was replaced."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.kubectl import Kubectl


@contextmanager
def forwarded(kubectl: Kubectl, target: str, port: int) -> Iterator[int]:
    """Forwards a port of this machine's loopback, whose number is yielded, to `target` (`service/s3`)."""
    forward = _Forward(kubectl, target, port)
    thread = threading.Thread(target=forward.run, daemon=True)
    thread.start()
    try:
        if not forward.ready.wait(60):
            raise TimeoutError(f"no port-forward to {target}")
        yield forward.local
    finally:
        forward.stop()
        thread.join()


class _Forward:
    """kubectl gives up when its pod is gone: then it is started again."""

    def __init__(self, kubectl: Kubectl, target: str, port: int) -> None:
        self.ready = threading.Event()
        self.local = _free_port()
        self._command = kubectl.command("port-forward", target, f"{self.local}:{port}")
        self._stopped = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        while not self._stopped.wait(0.2):
            with subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as process:
                self._process = process
                for line in process.stdout or ():
                    if line.startswith("Forwarding from"):
                        self.ready.set()

    def stop(self) -> None:
        self._stopped.set()
        if self._process:
            self._process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
