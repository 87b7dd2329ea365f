"""A stand-in for the Hugging Face hub on loopback: one model or data set, and the refusals that the real one gives.

It answers what huggingface_hub and `datasets` ask for a pinned revision: the listing of a folder or of the whole tree,
facts about the revision and about paths, HEAD and GET of files.
"""

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

Mode = Literal[
    "ok", "unauthorised", "forbidden", "gated", "no_repo", "no_revision", "broken", "limited", "cut_off", "not_a_hub"
]
# (status, X-Error-Code, X-Error-Message), as the hub sends them; "" where it sends none.
_REFUSALS: dict[Mode, tuple[int, str, str]] = {
    "unauthorised": (401, "", "Invalid username or password."),
    "forbidden": (403, "", "you do not have the right to see this"),
    "no_repo": (404, "RepoNotFound", "Repository not found"),
    "no_revision": (404, "RevisionNotFound", "Invalid rev id"),
    "broken": (503, "", ""),
    "limited": (429, "", ""),
}
_GATED = (403, "GatedRepo", "Access to this model is restricted")


class HubServer:
    """`with HubServer("owner/name", revision, files) as hub:` serves until the block ends."""

    def __init__(
        self,
        repo: str,
        revision: str,
        files: Mapping[str, bytes],
        *,
        mode: Mode = "ok",
        kind: Literal["models", "datasets"] = "models",
    ) -> None:
        self.repo = repo
        self.revision = revision
        self.files = dict(files)
        self.mode: Mode = mode
        self.api = f"/api/{kind}/{repo}"
        self.downloads_prefix = f"{'' if kind == 'models' else '/datasets'}/{repo}/resolve/{revision}/"
        self.requests: list[tuple[str, str]] = []
        """Method and path of every request."""
        self.tokens: set[str] = set()
        """Values of the Authorization header."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def downloads(self) -> list[str]:
        """Names of the files whose content was asked for."""
        return [path.rpartition("/")[2] for method, path in self.requests if method == "GET" and "/resolve/" in path]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_POST(self) -> None:
            self._answer(body=True)

        def log_message(self, *_: object) -> None:
            """Quiet."""

        def _answer(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path))
            if token := self.headers.get("Authorization"):
                hub.tokens.add(token)
            if refusal := _REFUSALS.get(hub.mode):
                self._refuse(*refusal)
            elif path == f"{hub.api}/tree/{hub.revision}" or path.startswith(f"{hub.api}/tree/{hub.revision}/"):
                folder = path.removeprefix(f"{hub.api}/tree/{hub.revision}").lstrip("/")
                recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() in ("1", "true")
                self._json(_listing(hub.files, folder, recursive=recursive), body=body)
            elif path == f"{hub.api}/revision/{hub.revision}":
                siblings = [{"rfilename": name} for name in hub.files]
                self._json({"_id": "0", "id": hub.repo, "sha": hub.revision, "siblings": siblings}, body=body)
            elif path == f"{hub.api}/paths-info/{hub.revision}":
                paths = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode()).get("paths", [])
                self._json([entry for path in paths if (entry := _path_info(hub.files, path))], body=body)
            elif path.startswith(hub.downloads_prefix):
                # Anybody may list a gated repository; its files are refused.
                name = path.removeprefix(hub.downloads_prefix)
                self._refuse(*_GATED) if hub.mode == "gated" else self._file(name, body=body)
            else:
                self._refuse(404, "RepoNotFound", "Repository not found")

        def _file(self, name: str, *, body: bool) -> None:
            if name not in hub.files:
                self._refuse(404, "EntryNotFound", "Entry not found")
                return
            data = hub.files[name]
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
            if hub.mode != "not_a_hub":
                headers["X-Repo-Commit"] = hub.revision
            self._send(data, headers, body=body)

        def _json(self, value: object, *, body: bool) -> None:
            self._send(json.dumps(value).encode(), body=body)

        def _send(self, data: bytes, headers: Mapping[str, str] | None = None, *, body: bool) -> None:
            self.send_response(200)
            for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(key, value)
            if hub.mode == "cut_off":
                self.close_connection = True
            self.end_headers()
            if body:
                self.wfile.write(data[: len(data) // 2] if hub.mode == "cut_off" and "/resolve/" in self.path else data)

        def _refuse(self, status: int, code: str, message: str) -> None:
            self.send_response(status)
            for key, value in {"X-Error-Code": code, "X-Error-Message": message, "Content-Length": "0"}.items():
                if value:
                    self.send_header(key, value)
            self.end_headers()

    return Handler


def _listing(files: Mapping[str, bytes], folder: str, *, recursive: bool) -> list[dict[str, object]]:
    """The files below a folder, or its files and its folders."""
    prefix = f"{folder}/" if folder else ""
    below = {name: data for name, data in files.items() if name.startswith(prefix)}
    folders = sorted({prefix + name[len(prefix) :].partition("/")[0] for name in below if "/" in name[len(prefix) :]})
    direct = [_entry(name, data) for name, data in below.items() if recursive or "/" not in name[len(prefix) :]]
    return direct + [_folder(name) for name in folders]


def _path_info(files: Mapping[str, bytes], path: str) -> dict[str, object] | None:
    if path in files:
        return _entry(path, files[path])
    return _folder(path) if any(name.startswith(f"{path}/") for name in files) else None


def _folder(name: str) -> dict[str, object]:
    return {"type": "directory", "path": name, "size": 0, "oid": hashlib.sha1(name.encode()).hexdigest()}


def _entry(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
