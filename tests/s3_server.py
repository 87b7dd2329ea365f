"""Real S3 servers on loopback for tests: moto's, which is always installed, and versitygw where it is on PATH."""

import os
import shutil
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

KINDS = ("moto", "versitygw")
"""moto believes every credential; versitygw checks them."""


@dataclass(frozen=True)
class S3Server:
    kind: str
    endpoint_url: str
    access_key: str = "sftjob-test-key"
    secret_key: str = "sftjob-test-secret"
    bucket: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What a user would set to reach it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_REGION": "us-east-1",
        }

    def with_new_bucket(self) -> "S3Server":
        """The same server with an empty bucket of its own."""
        bucket = f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=bucket)
        return replace(self, bucket=bucket)

    def client(self) -> "S3Client":
        return _client(self.endpoint_url, self.access_key, self.secret_key)


def missing(kind: str) -> str:
    """Why this kind cannot be started here; empty when it can."""
    return "versitygw is not on PATH" if kind == "versitygw" and not shutil.which("versitygw") else ""


@contextmanager
def serve(kind: str, folder: Path) -> Iterator[S3Server]:
    """Starts a server and stops it at the end. `folder` keeps the objects of one that keeps them in files."""
    with _moto() if kind == "moto" else _versitygw(folder) as server:
        yield server


@cache
def _client(endpoint_url: str, access_key: str, secret_key: str) -> "S3Client":
    import boto3  # noqa: PLC0415 - most tests need none

    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name="us-east-1",
    )


@contextmanager
def _moto() -> Iterator[S3Server]:
    from moto.moto_server.werkzeug_app import (  # noqa: PLC0415 - seconds to import
        DomainDispatcherApplication,
        create_backend_app,
    )
    from werkzeug.serving import make_server  # noqa: PLC0415

    app = DomainDispatcherApplication(create_backend_app)
    lock = threading.Lock()

    def one_at_a_time(*request: Any) -> Any:
        # moto looks for the object and writes it in two steps: of racing conditional writes several could win.
        with lock:
            return app(*request)

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield S3Server("moto", f"http://127.0.0.1:{server.port}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _versitygw(folder: Path) -> Iterator[S3Server]:
    port = _free_port()
    server = S3Server("versitygw", f"http://127.0.0.1:{port}")
    keys = {"ROOT_ACCESS_KEY": server.access_key, "ROOT_SECRET_KEY": server.secret_key}
    command = ["versitygw", "--quiet", "--port", f"127.0.0.1:{port}", "posix", str(folder)]
    process = subprocess.Popen(command, env=os.environ | keys, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=10)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(200):
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"versitygw did not start (exit code {process.poll()})")
