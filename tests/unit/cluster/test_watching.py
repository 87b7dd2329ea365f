from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from sftjob.cluster.answers import Expired
from sftjob.cluster.watching import PATIENCE_SECONDS, Event, follow
from sftjob.errors import ClusterUnavailable, Denied


def thing(name: str, version: str = "1", **more: Any) -> Any:
    return {"metadata": {"name": name, "uid": name, "resourceVersion": version}, **more}


@dataclass
class Script:
    """Lists and streams in order; an exception among the events is raised there."""

    lists: list[list[Any]]
    streams: list[list[Event | Exception]]
    now: float = 0.0
    pauses: list[float] = field(default_factory=list)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def pages(self) -> Iterator[tuple[list[Any], str]]:
        items = self.lists.pop(0)
        if items and isinstance(items[0], Exception):
            raise items[0]
        yield items[:1], "100"
        yield items[1:], "100"

    def stream(self, resource_version: str, seconds: int) -> Iterator[Event]:
        self.asked.append((resource_version, seconds))
        events = self.streams.pop(0) if self.streams else []
        self.now += 0 if any(isinstance(each, Exception) for each in events) else seconds
        for event in events:
            if isinstance(event, Exception):
                raise event
            yield event

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def follow(self, seconds: float, **options: Any) -> list[tuple[str, str]]:
        events = follow(self, seconds=seconds, now=lambda: self.now, pause=self.sleep, **options)
        return [(kind, each.get("metadata", {}).get("name", "")) for kind, each in events]


def test_begins_with_all_pages_and_ends_with_its_time() -> None:
    script = Script([[thing("a"), thing("b")]], [[("MODIFIED", thing("a", "101"))]])

    assert script.follow(60) == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "a")]
    assert script.asked == [("100", 50), ("101", 10)]


def test_bookmarks_move_the_version_and_are_not_told() -> None:
    script = Script([[]], [[("BOOKMARK", thing("", "150"))]])

    assert script.follow(60) == []
    assert script.asked[1][0] == "150"


def test_the_end_of_a_list_is_told_where_asked_for() -> None:
    script = Script([[thing("a")]], [[]])

    assert script.follow(40, bookmarks=True) == [("ADDED", "a"), ("BOOKMARK", "")]


def test_after_a_410_only_the_difference_is_told() -> None:
    first = [thing("stays"), thing("changes"), thing("goes")]
    second = [thing("stays"), thing("changes", "2"), thing("comes")]
    script = Script([first, second], [[("ADDED", thing("new", "5")), Expired("too old")]])

    told = script.follow(90)[4:]
    assert sorted(told) == [("ADDED", "comes"), ("DELETED", "goes"), ("DELETED", "new"), ("MODIFIED", "changes")]


def test_what_was_deleted_before_a_410_is_not_deleted_again() -> None:
    script = Script([[thing("a")], []], [[("DELETED", thing("a", "2")), Expired("too old")]])

    assert script.follow(90) == [("ADDED", "a"), ("DELETED", "a")]


def test_a_deletion_that_a_list_tells_has_name_and_labels() -> None:
    gone = {"metadata": {"name": "a", "uid": "a", "resourceVersion": "1", "labels": {"x": "y"}}, "spec": {"big": 1}}
    script = Script([[gone], []], [[Expired("too old")]])

    events = list(follow(script, seconds=90, now=lambda: script.now, pause=script.sleep))
    assert events[1] == ("DELETED", {"metadata": {"name": "a", "uid": "a", "labels": {"x": "y"}}})


def test_a_server_that_is_away_for_a_while_is_waited_for() -> None:
    away: list[list[Event | Exception]] = [[ClusterUnavailable("away")] for _ in range(5)]
    script = Script([[thing("a")]], [*away, [("DELETED", thing("a", "2"))]])

    assert script.follow(60) == [("ADDED", "a"), ("DELETED", "a")]
    assert script.pauses == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_a_server_that_stays_away_ends_it() -> None:
    script = Script([[ClusterUnavailable(f"away {number}")] for number in range(100)], [])

    with pytest.raises(ClusterUnavailable):
        script.follow(10_000)
    assert PATIENCE_SECONDS < script.now < PATIENCE_SECONDS + 15
    assert max(script.pauses) == 10


@pytest.mark.parametrize(
    "streams",
    [[[("MODIFIED", thing("a", "2")), ClusterUnavailable("away")]], [[ClusterUnavailable("away")], []]],
    ids=["an event", "an end"],
)
def test_the_patience_begins_anew_after_every_answer(streams: list[list[Event | Exception]]) -> None:
    script = Script([[thing("a")], [Denied("stop")]], [*streams * 20, [Expired("old")]])

    with pytest.raises(Denied):
        script.follow(10_000)
    assert script.pauses == [0.5] * 20


def test_streams_that_end_at_once_are_not_asked_for_without_a_pause() -> None:
    script = Script([[]], [])
    script.stream = lambda version, seconds: iter(())  # type: ignore[method-assign]

    script.follow(10)
    assert script.pauses == [0.5] * 20


def test_a_refusal_is_raised_at_once() -> None:
    script = Script([[Denied("no")]], [])

    with pytest.raises(Denied):
        script.follow(60)
    assert not script.pauses
