"""A small server that plays a cluster's API over loopback: answers from a script, and remembers what was asked."""

import json
import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml


@dataclass
class Answer:
    """What the server says to one request."""

    status: int = 200
    body: Any = None
    """JSON, or bytes as they are."""
    lines: Sequence[Any] | None = None
    """Instead of a body: a stream of JSON lines (or bytes), a chunk each."""
    cut: bool = False
    """The stream breaks off without an end."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class ApiServer:
    """`script[path]` are the answers in order; the last one is repeated."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    script: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))

    def says(self, path: str, *answers: Answer) -> None:
        self.script[path].extend(answers)

    def next(self, path: str, *, watch: bool = False) -> Answer | None:
        """None for a watch where the script has no stream for it: nothing happens then."""
        known = self.script.get(path)
        if not known:
            return refusal(404, "NotFound", "the server could not find the requested resource")
        if watch and known[0].lines is None and known[0].status == 200:
            return None
        return known.pop(0) if len(known) > 1 else known[0]

    def queries(self, path: str) -> list[dict[str, str]]:
        return [each.query for each in self.asked if each.path == path]


def refusal(code: int, reason: str, message: str, **more: Any) -> Answer:
    """An answer as the API server refuses with."""
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return Answer(code, status | {"message": message, "reason": reason, "code": code} | more)


def page(*items: Any, version: str = "10", token: str = "") -> Answer:
    """A list, or one page of it."""
    metadata = {"resourceVersion": version} | ({"continue": token} if token else {})
    return Answer(body={"kind": "List", "metadata": metadata, "items": list(items)})


def stream(*events: tuple[str, Any], cut: bool = False) -> Answer:
    """A watch's answer."""
    return Answer(lines=[{"type": kind, "object": each} for kind, each in events], cut=cut)


@contextmanager
def api_server(certificate: tuple[Path, Path] | None = None) -> Iterator[ApiServer]:
    """Serves until the end of the block; over TLS with a certificate and its key."""
    known = ApiServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(known))
    server.daemon_threads = True
    scheme = "http"
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    known.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield known
    finally:
        known.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def write_kubeconfig(path: Path, url: str, *, user: Any = None, namespace: str = "ns", cluster: Any = None) -> Path:
    """A kubeconfig with one context, `here`."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
        "clusters": [{"name": "c", "cluster": {"server": url} | (cluster or {})}],
        "users": [{"name": "u", "user": {"token": "secret"} if user is None else user}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def _handler(known: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = dict(parse_qsl(parts.query))
            known.asked.append(Asked(self.command, parts.path, query, dict(self.headers), body))
            answer = known.next(parts.path, watch=query.get("watch") == "true")
            if answer is None:
                self.idle()
            else:
                self.send(answer)

        def idle(self) -> None:
            """A watch of what does not change."""
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            known.over.wait()
            self.close_connection = True

        do_GET = do_PATCH = do_DELETE = do_POST = answer  # noqa: N815 - the base class's names

        def send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.lines is None:
                body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in answer.lines:
                data = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()
            if answer.cut:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
