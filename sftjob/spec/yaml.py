"""The YAML reader of specs and profiles: a subset on which all readers agree, with the line of every field.

It works on PyYAML's event stream and not on its nodes, because only events tell of anchors, tags and duplicate keys,
and because a stream can be left as soon as it is too deep or too long.
"""

import re
from typing import Final, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

from sftjob.errors import Problem
from sftjob.spec.document import PLACEHOLDER, Document
from sftjob.spec.scalars import plain_scalar
from sftjob.spec.values import MAX_DEPTH, MAX_NODES, Json, Refusal, clip, key_refusal, shown, text_refusal

_HINTS: Final = (
    ("'\\t'", "indent with spaces, not with tabs"),
    ("cannot start any token", "put the value in quotes"),
    ("mapping values are not allowed", "check the indentation, and quote text that contains `: `"),
    ("could not find expected ':'", "write `key: value`, or put the text in quotes"),
    ("but found '<block", "check the indentation of this line and of the one before"),
    ("stream", "close the quote or bracket that is open"),
    ("", "check this line and the one before"),
)


_UNCLEAN: Final = re.compile("[^\t\n -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
"""All but YAML's printable characters; NEL, LS, PS and a lone CR end lines for some readers only."""


def read_yaml(text: str) -> Document:
    """Reads one document; lines end with LF alone.

    Refused, each with its line: characters that are no text (nothing else is looked at then), syntax errors, a second
    document, directives, anchors, aliases, tags, merge keys, duplicate keys, keys that are no plain ASCII words, more
    than 20 levels or 10,000 values, and what `sftjob.spec.scalars` and `sftjob.spec.values` refuse. Nothing is raised.
    """
    unclean = [
        Problem(reason=f"holds the character U+{ord(bad[0]):04X}", hint="delete it", line=line)
        for line, content in enumerate(text.split("\n"), start=1)
        if (bad := _UNCLEAN.search(content))
    ]
    if unclean:
        return Document(problems=tuple(unclean))
    composer = _Composer(text)
    try:
        value = composer.document()
    except _Unreadable:
        return Document(problems=tuple(composer.problems))
    return Document(
        value, composer.lines, tuple(composer.problems), frozenset(composer.refused), is_block=composer.is_block
    )


class _Unreadable(Exception):
    """The rest of the stream cannot or will not be read; the problem is noted."""


class _Events(Reader, Scanner, Parser):
    """PyYAML's own stages up to the parser, without its resolver and constructors, which read YAML 1.1."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)


class _Composer:
    def __init__(self, text: str) -> None:
        self._events = _Events(text)
        self._nodes = 0
        self.lines: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.refused: set[str] = set()
        self.is_block = False

    def document(self) -> Json:
        self._next()  # the stream's start
        start = self._next()
        if not isinstance(start, DocumentStartEvent):
            self._stop(1, "the file is empty", "write a spec into it")
        if start.version or start.tags:
            self._note(
                "", _line(start), Refusal("directives are not supported", "delete the line that begins with `%`")
            )
        first = self._next()
        self.lines[""] = _line(first)
        self.is_block = isinstance(first, CollectionStartEvent) and not first.flow_style
        value = self._node(first, "", 0)
        self._next()  # the document's end
        after = self._next()
        if not isinstance(after, StreamEndEvent):
            self._note("", _line(after), Refusal("a second document begins here", "keep one document in a file"))
        return value

    def _next(self) -> Event:
        try:
            event: Event = self._events.get_event()  # type: ignore[no-untyped-call] # the stubs leave it out
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
        except (ValueError, OverflowError):  # PyYAML converts `\U99999999` and `%YAML 1.<5000 digits>` unguarded
            line = self._events.line + 1
            self._stop(line, "not YAML: an escape or a directive is out of range", "check this line")
        self._nodes += isinstance(event, NodeEvent)
        if self._nodes > MAX_NODES:
            self._stop(_line(event), f"more than {MAX_NODES} values", "a spec names data, it does not hold them")
        return event

    def _node(self, event: Event, field: str, depth: int) -> Json:
        self._check_depth(event, depth)
        if isinstance(event, AliasEvent):
            return self._refuse(field, _line(event), Refusal("is an alias (`*`)", "write the value out"))
        if isinstance(event, NodeEvent) and event.anchor:
            self._note(field, _line(event), Refusal("has an anchor (`&`)", "delete it and write each value out"))
        if isinstance(event, ScalarEvent | CollectionStartEvent) and event.tag:
            self._note(field, _line(event), Refusal("has a tag (`!`)", "delete the tag"))
        if isinstance(event, MappingStartEvent):
            return self._mapping(field, depth)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(field, depth)
        return self._scalar(event, field)

    def _mapping(self, field: str, depth: int) -> dict[str, Json]:
        values: dict[str, Json] = {}
        while not isinstance(event := self._next(), CollectionEndEvent):
            key = self._key(event, field)
            value = self._next()
            if key is None:
                self._skip(value)
                continue
            inner = f"{field}.{key}" if field else key
            if key in values:
                reason = f"duplicate key, it stands in line {self.lines[inner]} already"
                self._note(inner, _line(event), Refusal(reason, "keep one of the two"))
                self._skip(value)
                continue
            self.lines[inner] = _line(event)
            values[key] = self._node(value, inner, depth + 1)
        return values

    def _key(self, event: Event, field: str) -> str | None:
        """The key, or None (and a note at the mapping) when it cannot be one."""
        if not isinstance(event, ScalarEvent):
            self._skip(event)
            self._note(field, _line(event), Refusal("a key is not a word", "write `key: value`"))
            return None
        if refusal := _key_refusal(event):
            self._note(field, _line(event), refusal)
            return None
        return str(event.value)

    def _sequence(self, field: str, depth: int) -> list[Json]:
        values: list[Json] = []
        while not isinstance(event := self._next(), CollectionEndEvent):
            inner = f"{field}.{len(values)}" if field else str(len(values))
            self.lines[inner] = _line(event)
            values.append(self._node(event, inner, depth + 1))
        return values

    def _scalar(self, event: Event, field: str) -> Json:
        if not isinstance(event, ScalarEvent) or event.tag:  # nothing but scalars come here; the tag is noted
            self.refused.add(field)
            return PLACEHOLDER
        value = plain_scalar(event.value) if _is_plain(event) else str(event.value)
        if isinstance(value, Refusal):
            return self._refuse(field, _line(event), value)
        refusal = text_refusal(event.value)
        return self._refuse(field, _line(event), refusal) if refusal else value

    def _skip(self, event: Event) -> None:
        """Passes over a node whose place has no name."""
        depth = 0
        while True:
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if depth == 0:
                return
            self._check_depth(event, depth)
            event = self._next()

    def _check_depth(self, event: Event, depth: int) -> None:
        if depth > MAX_DEPTH:
            self._stop(_line(event), f"nested more than {MAX_DEPTH} levels deep", "check the brackets and indentation")

    def _refuse(self, field: str, line: int, refusal: Refusal) -> str:
        """Notes a problem and gives what stands for the value."""
        self._note(field, line, refusal)
        self.refused.add(field)
        return PLACEHOLDER

    def _note(self, field: str, line: int, refusal: Refusal) -> None:
        self.problems.append(Problem(reason=refusal.reason, hint=refusal.hint, field=field, line=line))

    def _syntax(self, error: yaml.MarkedYAMLError) -> NoReturn:
        problem = clip(str(error.problem or error.context or "syntax error"))
        # An open quote or bracket is noticed at the end of the file; the person looks for where it was opened.
        mark = error.context_mark if "stream" in problem else error.problem_mark
        mark = mark or error.problem_mark or error.context_mark
        hint = next(hint for part, hint in _HINTS if part in problem)
        self._stop(mark.line + 1 if mark else 1, f"not YAML: {problem}", hint)

    def _stop(self, line: int, reason: str, hint: str) -> NoReturn:
        self.problems.append(Problem(reason=reason, hint=hint, line=line))
        raise _Unreadable


def _key_refusal(event: ScalarEvent) -> Refusal | None:
    if event.tag or event.anchor:
        return Refusal("a key has a tag or an anchor", "delete it")
    if _is_plain(event) and event.value == "<<":
        return Refusal("merge keys (`<<`) are not supported", "write the fields out")
    if _is_plain(event) and not isinstance(plain_scalar(event.value), str):
        return Refusal(f"key {shown(event.value)} is not text to all YAML readers", "put it in quotes")
    return key_refusal(event.value)


def _is_plain(event: ScalarEvent) -> bool:
    """Unquoted and no block scalar; PyYAML gives an absent value no style at all."""
    return bool(event.implicit[0])


def _line(event: Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0
