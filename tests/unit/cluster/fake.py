"""A cluster in memory, with the methods of `sftjob.cluster.api.Cluster` that the client's commands use."""

import queue
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sftjob.cluster.kinds import Kind
from sftjob.errors import Denied, ObjectMissing

Manifest = dict[str, Any]


@dataclass
class FakeCluster:
    """Objects by kind and name. `put` and `remove` tell those who watch."""

    namespace: str = "ns"
    server: str = "https://fake"
    objects: dict[tuple[Kind, str], Manifest] = field(default_factory=dict)
    logs: dict[str, list[Any]] = field(default_factory=dict)
    """Lines of a pod; an exception among them is raised there, and the next reading starts after it."""
    done: list[tuple[str, Kind, str, Any]] = field(default_factory=list)
    """What was changed."""
    refused: set[Kind] = field(default_factory=set)
    unknown: set[Kind] = field(default_factory=lambda: {Kind.JOBSET})
    watchers: list[tuple[Kind, str, "queue.Queue[Any]"]] = field(default_factory=list)

    def put(self, kind: Kind, *manifests: Manifest) -> None:
        for each in manifests:
            self.objects[(kind, each["metadata"]["name"])] = each
            self._tell(kind, "MODIFIED", each)

    def remove(self, kind: Kind, name: str) -> None:
        self._tell(kind, "DELETED", self.objects.pop((kind, name)))

    def get(self, kind: Kind, name: str) -> Manifest:
        self._allowed(kind)
        if kind is Kind.NAMESPACE and name == self.namespace:
            return {}
        if (kind, name) not in self.objects:
            raise ObjectMissing(f"{kind.kind} {name} is not in namespace {self.namespace}")
        return self.objects[(kind, name)]

    def find(
        self,
        kind: Kind,
        *,
        labels: Any = None,
        fields: Mapping[str, str] | None = None,
        all_namespaces: bool = False,
        page: int = 500,
    ) -> Iterator[Manifest]:
        self._allowed(kind)
        about = (fields or {}).get("involvedObject.name")
        for (of, _), each in sorted(self.objects.items(), key=lambda item: (item[0][0].name, item[0][1])):
            named = about in (None, each.get("involvedObject", {}).get("name"))
            if of is kind and named and _selected(each, labels):
                # As the API does: items of a list do not say what they are.
                yield {key: value for key, value in each.items() if key not in ("kind", "apiVersion")}

    def watch(self, kind: Kind, *, labels: Any = None, bookmarks: bool = False, **_: Any) -> Iterator[Any]:
        changes: queue.Queue[Any] = queue.Queue()
        self.watchers.append((kind, labels, changes))
        for each in self.find(kind, labels=labels):
            yield "ADDED", each
        if bookmarks:
            yield "BOOKMARK", {}
        while True:
            yield changes.get()

    def patch(self, kind: Kind, name: str, patch: Manifest) -> Manifest:
        self.done.append(("patch", kind, name, patch))
        return self.get(kind, name)

    def delete(self, kind: Kind, name: str, **options: Any) -> None:
        self.get(kind, name)
        self.done.append(("delete", kind, name, options))

    def log(self, pod: str, container: str, **options: Any) -> Iterator[bytes]:
        self.done.append(("log", Kind.POD, pod, options))
        lines = self.logs.get(pod, [])
        while lines:
            line = lines.pop(0)
            if isinstance(line, Exception):
                raise line
            yield line.encode()

    def _allowed(self, kind: Kind) -> None:
        if kind in self.refused:
            raise Denied(f"cannot list {kind.plural}")
        if kind in self.unknown:
            raise ObjectMissing(f"the cluster has no {kind.kind}")

    def _tell(self, kind: Kind, event: str, manifest: Manifest) -> None:
        for of, labels, changes in list(self.watchers):
            if of is kind and _selected(manifest, labels):
                changes.put((event, manifest))


def _selected(manifest: Manifest, labels: Any) -> bool:
    """Of selectors as much as ours use: `a=b`, `!a` and `a in (b,c)`."""
    own = manifest.get("metadata", {}).get("labels", {})
    for term in re.split(r",(?![^(]*\))", labels or ""):
        if term.startswith("!"):
            held = term[1:] not in own
        elif " in " in term:
            key, _, values = term.partition(" in ")
            held = own.get(key) in values.strip("()").split(",")
        else:
            key, _, value = term.partition("=")
            held = not term or own.get(key) == value
        if not held:
            return False
    return True
