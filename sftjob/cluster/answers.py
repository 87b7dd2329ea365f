"""What the API server's refusals mean to us: one line in plain words and the next command. Pure.

Statuses: https://github.com/kubernetes/apimachinery/blob/v0.34.0/pkg/apis/meta/v1/types.go (StatusReason)
"""

import json
import re
from dataclasses import dataclass
from typing import Final

from sftjob.cluster.kinds import Kind
from sftjob.errors import ClusterError, ClusterUnavailable, Conflict, Denied, ObjectMissing, SftjobError, SpecError
from sftjob.render import Manifest


class Expired(ClusterError):
    """410: the resource version or the page's token is too old; whoever reads has to begin again."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked, for messages."""

    verb: str
    kind: Kind
    namespace: str = ""
    name: str = ""
    server: str = ""

    def __str__(self) -> str:
        return f"{self.kind.kind} {self.name}" if self.name else self.kind.plural


RETRIED: Final = frozenset({429, 502, 503, 504})
"""Passing troubles of a server or of what stands before it. A 500 of the API server itself repeats itself."""


def to_error(request: Request, status: int, body: bytes) -> SftjobError:
    """The error of a refused request.

    Args:
        status: HTTP status, 400 or more.
        body: a `Status` object as JSON; of a proxy's answer anything.
    """
    answer = _status(body)
    message = " ".join(str(answer.get("message") or f"HTTP {status}").split())
    if status == 401:
        reason = f"{request.server} does not accept these credentials ({message})"
        return Denied(reason, hint="log in to the cluster again; kubectl auth whoami")
    if status == 403:
        return _forbidden(request, message)
    if status == 404:
        return _missing(request, message, answer)
    if status in (400, 422) or _NOT_IN_SCHEMA in message:
        return SpecError(_invalid(message), file=f"{request}")
    return _trouble(request, status, message)


def continue_token(body: bytes) -> str | None:
    """The token of a 410 with which a list goes on, over what is there now."""
    metadata = _status(body).get("metadata")
    token = metadata.get("continue") if isinstance(metadata, dict) else None
    return str(token) if token else None


_CONFLICT_HINT: Final = (
    "another tool has changed the object; delete it, or see: kubectl get -o yaml --show-managed-fields"
)
_NOT_IN_SCHEMA: Final = "failed to create typed patch object"
"""An unknown field in a server-side apply is an internal error (500) to the API server."""
_STRICT: Final = re.compile(r"(?:strict decoding error|failed to create typed patch object \([^)]*\)): (.*)")
_NO_NAMESPACE: Final = re.compile(r'namespaces "([^"]+)" not found')


def _status(body: bytes) -> Manifest:
    try:
        answer = json.loads(body)
    except ValueError:
        # A proxy's page: its first words at least.
        return {"message": body[:200].decode(errors="replace").strip()}
    return answer if isinstance(answer, dict) else {}


def _trouble(request: Request, status: int, message: str) -> ClusterError:
    if status == 409:
        return Conflict(f"{request}: {message}", hint=_CONFLICT_HINT if "conflict" in message else "")
    if status == 410:
        return Expired(message)
    if status >= 500 or status == 429:
        reason = f"{request.server} does not serve {request.verb} {request}: {message}"
        return ClusterUnavailable(reason, hint="try again; kubectl get --raw /readyz tells how the server is")
    return ClusterError(f"{request.server} answers {request.verb} {request} with HTTP {status}: {message}")


def _forbidden(request: Request, message: str) -> Denied:
    """Permissions are one reason of several: quotas and admission answer with 403, too."""
    if "exceeded quota" in message:
        return Denied(_after_forbidden(message), file=f"{request}", hint=f"kubectl describe quota{_in(request)}")
    if "violates PodSecurity" in message:
        reason = _after_forbidden(message)
        return Denied(reason, file=f"{request}", hint=f"kubectl get namespace {request.namespace} --show-labels")
    if " cannot " in message:
        asked = f"kubectl auth can-i {request.verb} {request.kind.resource}{_in(request)}"
        return Denied(_after_forbidden(message), hint=f"ask for a role that allows it; {asked}")
    return Denied(_after_forbidden(message), file=f"{request}")


def _after_forbidden(message: str) -> str:
    """`jobs.batch "a" is forbidden: User …` without what the line says anyway."""
    return message.partition(" is forbidden: ")[2] or message


def _missing(request: Request, message: str, answer: Manifest) -> ObjectMissing:
    if found := _NO_NAMESPACE.search(message):
        return ObjectMissing(f"namespace {found[1]} is not in the cluster", hint=f"kubectl create namespace {found[1]}")
    if not request.name or "could not find the requested resource" in message or not answer.get("details"):
        kind = request.kind
        hint = f"kubectl api-resources --api-group={kind.api_version.partition('/')[0]}" if kind is Kind.JOBSET else ""
        return ObjectMissing(f"the cluster has no {kind.kind} ({kind.api_version})", hint=hint)
    within = f" in namespace {request.namespace}" if request.kind.namespaced else " in the cluster"
    return ObjectMissing(f"{request} is not{within}")


def _invalid(message: str) -> str:
    """The server's reason without its preamble."""
    if found := _STRICT.search(message):
        return found[1]
    return message.partition(" is invalid: ")[2] or message


def _in(request: Request) -> str:
    return f" -n {request.namespace}" if request.kind.namespaced and request.namespace else ""
