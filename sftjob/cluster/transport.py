"""Requests to an API server, over the connections and credentials of the official client: tries, streams, troubles."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

import urllib3

from sftjob.cluster.answers import RETRIED, Request, to_error
from sftjob.errors import ClusterError, ClusterUnavailable
from sftjob.render import Manifest

_CONNECT_SECONDS: Final = 10
_READ_SECONDS: Final = 60
_PAUSES: Final = (0.3, 1.0, 3.0)
"""Between the tries of a request. All of ours may be repeated: no name is generated, nothing is appended."""
_LONGEST_RETRY_AFTER: Final = 10.0


class Transport:
    """Sends requests. Safe for several threads, as the client's connection pool is."""

    def __init__(self, client: Any) -> None:
        """Takes an `ApiClient`, of which the address, the headers and the connections are used."""
        self._client = client

    @property
    def server(self) -> str:
        """The address, for messages."""
        return str(self._client.configuration.host)

    def manifest(
        self,
        method: str,
        request: Request,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        """The object that a request answers with; what is refused is raised."""
        return checked(request, *self.send(method, request, query, body, content_type))

    def send(
        self,
        method: str,
        request: Request,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> tuple[int, bytes]:
        """Status and body of an answer, after a few tries where another one may help."""
        for pause in _PAUSES:
            try:
                response = self._open(method, request, query, body, content_type)
                status, answer = int(response.status), _read(request, response)
            except ClusterUnavailable:
                time.sleep(pause)
                continue
            if status not in RETRIED:
                return status, answer
            time.sleep(max(pause, _retry_after(response.headers.get("Retry-After"))))
        response = self._open(method, request, query, body, content_type)
        return int(response.status), _read(request, response)

    def lines(
        self, request: Request, query: Mapping[str, str], *, suffix: str = "", silence_seconds: float | None = None
    ) -> Iterator[bytes]:
        """Lines of an answer that may never end, as they come. Closing the iterator closes the connection.

        Args:
            silence_seconds: after so long without a byte the connection counts as lost; None: it may be silent.
        """
        response = self._open("GET", request, query, suffix=suffix, read_seconds=silence_seconds)
        try:
            if response.status >= 400:
                raise to_error(request, int(response.status), _read(request, response))
            with _told_troubles(request):
                yield from _split(response.stream(amt=None, decode_content=True))
        finally:
            # Not given back to the pool: nobody will read the rest of an endless answer.
            response.close()

    def _open(
        self,
        method: str,
        request: Request,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
        *,
        suffix: str = "",
        read_seconds: float | None = _READ_SECONDS,
    ) -> Any:
        """The answer's beginning; its body is still to be read."""
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
        if body is not None:
            headers["Content-Type"] = content_type
        path = request.kind.path(request.namespace or None, request.name) + suffix
        # Asks for a new token where a short one has run out, as a credential plugin's may have.
        _, url, headers, _, _ = self._client.param_serialize(
            method, path, query_params=[*(query or {}).items()], header_params=headers, auth_settings=["BearerToken"]
        )
        with _told_troubles(request):
            return self._client.rest_client.pool_manager.request(
                method,
                url,
                headers=headers,
                body=None if body is None else json.dumps(body).encode(),
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds),
                # urllib3 would log every try.
                retries=False,
                preload_content=False,
            )


def checked(request: Request, status: int, body: bytes) -> Manifest:
    """The answer as an object, or what it refuses as an error."""
    if status >= 400:
        raise to_error(request, status, body)
    try:
        return cast("Manifest", json.loads(body))
    except ValueError as error:
        raise ClusterError(f"{request.server} does not answer in JSON: is it a cluster?") from error


def _read(request: Request, response: Any) -> bytes:
    with _told_troubles(request):
        return bytes(response.data)


@contextmanager
def _told_troubles(request: Request) -> Iterator[None]:
    """No answer, told in one line."""
    try:
        yield
    except urllib3.exceptions.SSLError as error:
        hint = "check certificate-authority of the kubeconfig's cluster, and that the address is the cluster's"
        raise ClusterError(f"{request.server} is not trusted ({_cause(error)})", hint=hint) from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        hint = "check that the cluster is up and reachable from here: kubectl cluster-info"
        raise ClusterUnavailable(f"{request.server} does not answer ({_cause(error)})", hint=hint) from error


def _cause(error: BaseException) -> str:
    """The innermost error says most; urllib3's own sentences name Python objects by their address."""
    inner = error
    while deeper := next((each for each in (inner.__cause__, *inner.args) if isinstance(each, BaseException)), None):
        inner = deeper
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return " ".join(str(inner).rpartition(": ")[2].split()) or type(inner).__name__


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of a stream; the last one may have no end."""
    parts: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        parts.append(first)
        for other in others:
            yield b"".join(parts)
            parts = [other]
    if last := b"".join(parts):
        yield last


def _retry_after(header: str | None) -> float:
    return min(float(header), _LONGEST_RETRY_AFTER) if header and header.isdigit() else 0.0
