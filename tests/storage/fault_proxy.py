"""A proxy in front of an S3 server that does wrong by rule: refuses, loses replies, cuts bodies, flips bytes."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Action = Literal["status", "lose_reply", "short_body", "cut_body", "flip_byte", "strip_condition"]
"""`short_body` breaks off; `cut_body` is as short, and its Content-Length agrees."""


@dataclass
class Fault:
    """Hits matching requests number `skip` to `skip + times - 1`, counted from 0."""

    action: Action
    method: str = ""
    """Any method when empty."""
    contains: str = ""
    """Part of path and query."""
    skip: int = 0
    times: int = 1
    status: int = 503
    code: str = "SlowDown"
    seen: int = 0
    hits: int = 0

    def strikes(self, method: str, path: str) -> bool:
        if self.method not in ("", method) or self.contains not in path:
            return False
        self.seen += 1
        hit = self.skip < self.seen <= self.skip + self.times
        self.hits += hit
        return hit


@dataclass
class FaultProxy:
    endpoint_url: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of everything that came, in order."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.requests.append((method, path))
            return next((fault for fault in self.faults if fault.strikes(method, path)), None)


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.upstream = urlsplit(upstream).netloc
    proxy = server.proxy = FaultProxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: FaultProxy
    upstream: str


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"  # under 1.0 no 100-continue is sent, and boto3 waits a second for it in each PUT

    def answer(self) -> None:
        # One request a connection: a fault ends with it, and no connection is left open at the end of a test.
        self.close_connection = True
        fault = self.server.proxy.fault_for(self.command, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if fault and fault.action == "status":
            return self._refuse(fault)
        status, headers, answer = self._forward(body, fault)
        if fault and fault.action == "lose_reply":
            return None
        answer = _spoilt(answer, fault)
        if fault and fault.action == "cut_body":
            headers = [
                (name, str(len(answer)) if name.lower() == "content-length" else value) for name, value in headers
            ]
        return self._reply(status, headers, answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _refuse(self, fault: Fault) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>injected</Message></Error>".encode()
        self._reply(fault.status, [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))], text)

    def _forward(self, body: bytes, fault: Fault | None) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        dropped = {"expect", "connection"} | (
            {"if-none-match"} if fault and fault.action == "strip_condition" else set()
        )
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in dropped:
                connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        answer = response.read()
        headers = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
        if not any(name.lower() == "content-length" for name, _ in headers):
            headers.append(("Content-Length", str(len(answer))))
        connection.close()
        return response.status, headers, answer

    def _reply(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in [*headers, ("Connection", "close")]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


_HOP_BY_HOP = ("transfer-encoding", "connection", "keep-alive")


def _spoilt(body: bytes, fault: Fault | None) -> bytes:
    if fault and fault.action in ("short_body", "cut_body"):
        return body[: len(body) // 2]
    if fault and fault.action == "flip_byte" and body:
        return bytes([body[0] ^ 1]) + body[1:]
    return body
