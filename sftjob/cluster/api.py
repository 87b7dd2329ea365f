"""A cluster's API, with plain dicts in and out, over the official `kubernetes` client."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, cast

from kubernetes import client

from sftjob import __version__
from sftjob.cluster.answers import Expired, Request, continue_token, to_error
from sftjob.cluster.credentials import load_in_cluster, load_kubeconfig
from sftjob.cluster.fields import number
from sftjob.cluster.kinds import Kind, kind_of
from sftjob.cluster.transport import Transport, checked
from sftjob.cluster.watching import Event, follow
from sftjob.errors import ClusterUnavailable
from sftjob.render import Manifest

__all__ = ["FIELD_MANAGER", "Cluster", "Event", "Expired", "Kind", "connect"]

FIELD_MANAGER: Final = "sftjob"
"""Owns the fields that we apply, in `managedFields`."""
Labels = Mapping[str, str] | str | None
"""Equalities, or a label selector as text."""
_CONNECTIONS: Final = 256
"""Each log that is followed holds one."""
_SLACK_SECONDS: Final = 10.0


def connect(*, context: str | None = None, namespace: str | None = None) -> "Cluster":
    """The cluster that `KUBECONFIG` or ~/.kube/config names, else the one in which this process runs.

    Credential plugins, proxies and client certificates work as the official client does them. Nothing is asked of the
    cluster yet.

    Args:
        context: of the kubeconfig; its current one without it.
        namespace: without it the context's, the pod's own, or `default`.

    Raises:
        ClusterUnavailable: no cluster is configured, or the kubeconfig cannot be read.
        Denied: a credential plugin failed.
    """
    configuration = client.Configuration()
    files = os.environ.get("KUBECONFIG") or "~/.kube/config"
    if any(Path(each).expanduser().is_file() for each in files.split(os.pathsep)):
        found = load_kubeconfig(configuration, files, context)
    elif not os.environ.get("KUBECONFIG") and os.environ.get("KUBERNETES_SERVICE_HOST") and context is None:
        found = load_in_cluster(configuration)
    else:
        hint = "set KUBECONFIG to your cluster's file; kubectl config view shows what is found"
        raise ClusterUnavailable(f"no cluster is configured: there is no {files}", hint=hint)
    configuration.connection_pool_maxsize = _CONNECTIONS
    configuration.keep_alive = True
    api = client.ApiClient(configuration)
    api.user_agent = f"sftjob/{__version__}"
    return Cluster(Transport(api), namespace or found or "default")


class Cluster:
    """One namespace of one cluster. Objects are plain JSON; every refusal is an error of `sftjob.errors`.

    All methods may raise `Denied` (401, 403), `ClusterUnavailable` (no answer, or 5xx after some tries) and
    `ClusterError`. May be used by several threads.
    """

    def __init__(self, transport: Transport, namespace: str) -> None:
        self._transport = transport
        self.namespace = namespace

    @property
    def server(self) -> str:
        """The address, for messages."""
        return self._transport.server

    def at(self, namespace: str) -> "Cluster":
        """The same cluster, another namespace."""
        return Cluster(self._transport, namespace)

    def get(self, kind: Kind, name: str) -> Manifest:
        """One object. Raises `ObjectMissing`, also when the cluster does not know the kind."""
        return self._transport.manifest("GET", self._request("get", kind, name))

    def find(
        self,
        kind: Kind,
        *,
        labels: Labels = None,
        fields: Mapping[str, str] | None = None,
        all_namespaces: bool = False,
        page: int = 500,
    ) -> Iterator[Manifest]:
        """Objects that match, a page at a time: no more than one page is held.

        Args:
            labels: equalities, or a label selector as text.
            fields: of a field selector, for instance `{"involvedObject.name": pod}`.
            all_namespaces: those of the whole cluster.
            page: so many objects a request.

        Raises:
            ObjectMissing: the cluster does not know the kind. A namespace that is not there is an empty one.
        """
        for items, _ in self._pages(kind, _selectors(labels, fields), all_namespaces=all_namespaces, page=page):
            yield from items

    def watch(
        self,
        kind: Kind,
        *,
        labels: Labels = None,
        fields: Mapping[str, str] | None = None,
        seconds: float | None = None,
        bookmarks: bool = False,
    ) -> Iterator[Event]:
        """Every object that matches as `ADDED`, then changes as they come; see `sftjob.cluster.watching.follow`."""
        return follow(_Watched(self, kind, _selectors(labels, fields)), seconds=seconds, bookmarks=bookmarks)

    def apply(self, manifest: Manifest, *, dry_run: bool = False, force: bool = False) -> Manifest:
        """Server-side apply as field manager `sftjob`; unknown fields are refused.

        Args:
            manifest: goes to its own namespace, or to this one where it names none.
            dry_run: the server validates, admits and stores nothing.
            force: takes over fields that another manager owns.

        Returns:
            The object as it is now.

        Raises:
            SpecError: the object is invalid.
            Conflict: another manager owns a field.
            ObjectMissing: no such namespace or kind.
        """
        kind, metadata = kind_of(manifest), cast("Manifest", manifest["metadata"])
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", "force": str(force).lower()}
        if dry_run:
            query["dryRun"] = "All"
        target = self.at(str(metadata.get("namespace") or self.namespace))
        request = target._request("patch", kind, str(metadata["name"]))
        # JSON is YAML; the API has no other media type for this.
        return self._transport.manifest("PATCH", request, query, manifest, "application/apply-patch+yaml")

    def patch(self, kind: Kind, name: str, patch: Manifest) -> Manifest:
        """A JSON merge patch: a null takes a field away. Raises `ObjectMissing`, `SpecError`, `Conflict`."""
        query, request = {"fieldManager": FIELD_MANAGER}, self._request("patch", kind, name)
        return self._transport.manifest("PATCH", request, query, patch, "application/merge-patch+json")

    def delete(
        self,
        kind: Kind,
        name: str,
        *,
        propagation: str = "Foreground",
        grace_seconds: int | None = None,
        uid: str = "",
    ) -> None:
        """Asks for deletion and does not wait for it.

        Args:
            uid: of the object that is meant; another one that has its name by now is left alone.

        Raises:
            ObjectMissing: it is not there.
            Conflict: another object has its name.
        """
        body: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        if uid:
            body["preconditions"] = {"uid": uid}
        self._transport.manifest("DELETE", self._request("delete", kind, name), body=body)

    def log(
        self,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        since_time: str | None = None,
        tail_lines: int | None = None,
        timestamps: bool = False,
    ) -> Iterator[bytes]:
        """Lines without their ends, as far as the container has written them; with `follow` until it ends.

        Args:
            pod: name of the pod.
            container: its name in the pod.
            follow: go on with what is written from now on. The connection may be silent for hours.
            since_time: RFC 3339; whole seconds count.
            tail_lines: no more than the last ones.
            timestamps: each line begins with the time of its writing and a space.

        Raises:
            ObjectMissing: no such pod.
            SpecError: the container has not started, or its log is gone.
            ClusterUnavailable: the connection was lost.
        """
        query = {
            "container": container,
            "follow": "true" if follow else None,
            "sinceTime": since_time,
            "tailLines": None if tail_lines is None else str(tail_lines),
            "timestamps": "true" if timestamps else None,
        }
        given = {key: value for key, value in query.items() if value is not None}
        return self._transport.lines(self._request("get", Kind.POD, pod), given, suffix="/log")

    def _request(self, verb: str, kind: Kind, name: str = "", *, all_namespaces: bool = False) -> Request:
        namespace = "" if all_namespaces or not kind.namespaced else self.namespace
        return Request(verb=verb, kind=kind, namespace=namespace, name=name, server=self.server)

    def _pages(
        self, kind: Kind, query: Mapping[str, str], *, all_namespaces: bool = False, page: int = 500
    ) -> Iterator[tuple[list[Manifest], str]]:
        """Every page's objects with the list's resource version."""
        request = self._request("list", kind, all_namespaces=all_namespaces)
        token: str | None = ""
        while token is not None:
            given = {**query, "limit": str(page), **({"continue": token} if token else {})}
            status, body = self._transport.send("GET", request, given)
            # A token lives for minutes. With the server's new one the list goes on over what is there by now.
            if status == 410 and token and (token := continue_token(body)):
                continue
            found = checked(request, status, body)
            metadata = cast("Manifest", found.get("metadata") or {})
            yield cast("list[Manifest]", found.get("items") or []), str(metadata.get("resourceVersion") or "")
            token = str(metadata.get("continue") or "") or None


class _Watched:
    """The requests of a watch; a `watching.Source`."""

    def __init__(self, cluster: Cluster, kind: Kind, query: Mapping[str, str]) -> None:
        self._cluster, self._kind, self._query = cluster, kind, query

    def pages(self) -> Iterator[tuple[list[Manifest], str]]:
        return self._cluster._pages(self._kind, self._query)

    def stream(self, resource_version: str, seconds: int) -> Iterator[Event]:
        query = {
            **self._query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
        }
        request = self._cluster._request("watch", self._kind)
        for line in self._cluster._transport.lines(request, query, silence_seconds=seconds + _SLACK_SECONDS):
            kind, manifest = _event(request, line)
            if kind == "ERROR":
                raise to_error(request, number(manifest, "code") or 500, json.dumps(manifest).encode())
            yield kind, manifest


def _event(request: Request, line: bytes) -> Event:
    """One line of a watch; a broken one counts as a broken connection."""
    try:
        event = json.loads(line)
        return str(event["type"]), dict(event["object"])
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterUnavailable(f"{request.server} breaks off in a {request.verb} of {request}") from error


def _selectors(labels: Labels, fields: Mapping[str, str] | None) -> dict[str, str]:
    text = labels if isinstance(labels, str) else ",".join(f"{key}={value}" for key, value in (labels or {}).items())
    chosen = ",".join(f"{key}={value}" for key, value in (fields or {}).items())
    return {key: value for key, value in (("labelSelector", text), ("fieldSelector", chosen)) if value}
