"""For every ring: no way out of this machine, no credentials of the person who runs the tests, S3 servers on demand."""

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests import s3_server as servers
from tests.s3_server import S3Server

pytest.register_assert_rewrite("tests.store_contract")
_PERSONAL = ("AWS_", "HF_", "HUGGING_FACE_", "HUGGINGFACE_", "SFTJOB_")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden/manifests; never in CI")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--update-golden") and os.environ.get("CI"):
        raise pytest.UsageError("golden files are written by hand and read before they are kept, not in CI")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is at hand, as in CI, a skipped test is a failed one; only a GPU may be missing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("SFTJOB_NO_SKIPS") or reporter is None:
        return
    skipped = [report.nodeid for report in reporter.stats.get("skipped", []) if "gpu" not in report.keywords]
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"SFTJOB_NO_SKIPS: these may not be skipped here: {', '.join(skipped)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in list(os.environ):
        if name.startswith(_PERSONAL):
            monkeypatch.delenv(name)
    nowhere = str(tmp_path_factory.getbasetemp() / "no-such-file")
    monkeypatch.setenv("AWS_CONFIG_FILE", nowhere)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Without a profile of whoever runs the tests.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "no-config"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")


@pytest.fixture(scope="session")
def s3_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], S3Server]]:
    """Starts each kind of server at most once; all stop at the end of the session."""
    running: dict[str, S3Server] = {}
    with ExitStack() as stack:

        def get(kind: str) -> S3Server:
            if reason := servers.missing(kind):
                pytest.skip(reason)
            if kind not in running:
                running[kind] = stack.enter_context(servers.serve(kind, tmp_path_factory.mktemp(kind)))
            return running[kind]

        yield get


@pytest.fixture
def s3_server(s3_servers: Callable[[str], S3Server], monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """An S3 server with an empty bucket, and the environment that reaches it: versitygw where there is one."""
    kind = next(kind for kind in reversed(servers.KINDS) if not servers.missing(kind))
    return _entered(s3_servers(kind), monkeypatch)


@pytest.fixture(params=servers.KINDS)
def each_s3_server(
    request: pytest.FixtureRequest, s3_servers: Callable[[str], S3Server], monkeypatch: pytest.MonkeyPatch
) -> S3Server:
    """The same, once for each kind of server."""
    return _entered(s3_servers(request.param), monkeypatch)


def _entered(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.with_new_bucket()


def _guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family != socket.AF_UNIX and not _is_loopback(address[0]):
            # No OSError: code that retries or hides those must not hide this.
            raise RuntimeError(f"a test may not leave this machine: {address}")
        return connect(self, address)

    return guarded


def _is_loopback(host: str) -> bool:
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
