"""A watch that goes on: over time limits, lost connections, a server that is away for a while, and 410 Gone."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from sftjob.cluster.answers import Expired
from sftjob.errors import ClusterError
from sftjob.render import Manifest

PATIENCE_SECONDS: Final = 120.0
"""A server may be away for so long (an upgrade of its control plane) before a watch gives up."""
WINDOW_SECONDS: Final = 50
"""Of one request. Short, so that a connection that died unnoticed costs no more."""
_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE: Final = 10.0

Event = tuple[str, Manifest]
"""`ADDED`, `MODIFIED` or `DELETED`, and the object; where asked for `BOOKMARK` and an empty one."""


class Source(Protocol):
    """The two requests that a watch is made of."""

    def pages(self) -> Iterator[tuple[list[Manifest], str]]:
        """Every page's objects with the list's resource version."""

    def stream(self, resource_version: str, seconds: int) -> Iterator[Event]:
        """Changes since then, for so many seconds, with `BOOKMARK` and `ERROR` among them."""


def follow(
    source: Source,
    *,
    seconds: float | None = None,
    bookmarks: bool = False,
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """Every object as `ADDED`, then what changes, for `seconds` or until the caller has enough.

    After a gap the objects are listed again: what has changed comes as `MODIFIED`, what is gone as `DELETED` with
    nothing but its metadata. Nothing comes twice.

    Args:
        source: makes the requests.
        seconds: the watch ends after so long; without it never.
        bookmarks: tell the end of every list by a `BOOKMARK` without an object: until then not all has been told.
        now: a clock in seconds.
        pause: waits for so many seconds.

    Raises:
        ClusterError: no answer for two minutes.
        SftjobError: what will not pass: no permission, no such kind.
    """
    end = None if seconds is None else now() + seconds
    known, trouble = _Known(), _Trouble(now, pause)
    while end is None or now() < end:
        try:
            if not known.version:
                yield from known.listed(source)
                if bookmarks:
                    yield "BOOKMARK", {}
            window = WINDOW_SECONDS if end is None else max(1, min(WINDOW_SECONDS, int(end - now())))
            yield from trouble.watched(known.streamed(source, window))
        except Expired:
            known.version = ""
        except ClusterError as error:
            trouble.wait(error)


_CHANGES: Final = frozenset({"ADDED", "MODIFIED", "DELETED"})
_STUB: Final = frozenset({"name", "namespace", "uid", "labels"})


@dataclass
class _Known:
    """What has been told, as little of it as a later list has to be compared with."""

    version: str = ""
    """From which a stream goes on; empty when a list is needed."""
    told: dict[str, tuple[str, Manifest]] = field(default_factory=dict)
    """Resource version and a stub with name, namespace and labels, by UID."""

    def listed(self, source: Source) -> Iterator[Event]:
        """Events that a new list makes."""
        seen: set[str] = set()
        newest = ""
        for items, version in source.pages():
            newest = version
            for manifest in items:
                uid = _metadata(manifest, "uid")
                seen.add(uid)
                before = self.told.get(uid)
                if before is None or before[0] != _version(manifest):
                    kind = "MODIFIED" if before else "ADDED"
                    self._note(kind, manifest)
                    yield kind, manifest
        for uid in [uid for uid in self.told if uid not in seen]:
            yield "DELETED", self.told.pop(uid)[1]
        self.version = newest

    def streamed(self, source: Source, seconds: int) -> Iterator[Event | None]:
        """Changes; None for an answer that is none."""
        for kind, manifest in source.stream(self.version, seconds):
            self.version = _version(manifest) or self.version
            if kind in _CHANGES:
                self._note(kind, manifest)
                yield kind, manifest
            else:
                yield None

    def _note(self, kind: str, manifest: Manifest) -> None:
        uid = _metadata(manifest, "uid")
        if kind == "DELETED":
            self.told.pop(uid, None)
            return
        metadata = manifest.get("metadata")
        kept = {key: value for key, value in (metadata if isinstance(metadata, dict) else {}).items() if key in _STUB}
        self.told[uid] = (_version(manifest), {"metadata": kept})


@dataclass
class _Trouble:
    """Pauses that grow while nothing answers."""

    now: Callable[[], float]
    pause: Callable[[float], None]
    since: float | None = None
    next_pause: float = _PAUSE_SECONDS

    def watched(self, stream: Iterator[Event | None]) -> Iterator[Event]:
        """The stream's events. Whatever it answers ends the trouble."""
        began, answered = self.now(), False
        for event in stream:
            answered = True
            self._passed()
            if event is not None:
                yield event
        self._passed()
        if not answered and self.now() - began < _PAUSE_SECONDS:
            # Something on the way ends every stream at once.
            self.pause(_PAUSE_SECONDS)

    def wait(self, error: ClusterError) -> None:
        """Pauses, or raises the error when nothing has answered for long."""
        if self.since is None:
            self.since = self.now()
        if self.now() - self.since > PATIENCE_SECONDS:
            raise error
        self.pause(self.next_pause)
        self.next_pause = min(_LONGEST_PAUSE, self.next_pause * 2)

    def _passed(self) -> None:
        self.since, self.next_pause = None, _PAUSE_SECONDS


def _version(manifest: Manifest) -> str:
    return _metadata(manifest, "resourceVersion")


def _metadata(manifest: Manifest, key: str) -> str:
    metadata = manifest.get("metadata")
    return str(metadata.get(key) or "") if isinstance(metadata, dict) else ""
