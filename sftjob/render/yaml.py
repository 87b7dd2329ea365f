"""Manifests as YAML for people and for every reader: keys in their own order, no string that a reader could misread.

Objects become the emitter's events at once; PyYAML's own way, through nodes that it resolves again, takes longer.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import yaml

from sftjob.render.manifest import Json, Manifest

if TYPE_CHECKING:
    Emitter = yaml.SafeDumper
else:
    # The same bytes, ten times as fast, where PyYAML was built with libyaml.
    Emitter = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_AMBIGUOUS: Final = re.compile(
    r"[-+]?[.0-9][-+.:0-9a-f_xotz ]*|[-+]?\.?(inf|nan)|y|n|yes|no|on|off|true|false|null|~|=|<<|", re.IGNORECASE
)
"""Whatever some YAML 1.1 or 1.2 reader takes for a number, date, boolean or null, and a little more."""
_UNUSUAL: Final = re.compile(r"[^\n -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]")
"""Characters that emitters write differently or that some readers take for line breaks; they are escaped."""
_ONE_LINE: Final = 2**30
"""Never fold: a folded command cannot be searched for."""
_WORDS: Final = ((None, "null"), (True, "true"), (False, "false"))


def manifests_yaml(manifests: Iterable[Manifest], emitter: type[yaml.SafeDumper] = Emitter) -> str:
    """The objects as one YAML stream; the same objects give the same bytes."""
    text: str = yaml.emit(_stream(manifests), Dumper=emitter, allow_unicode=True, width=_ONE_LINE)
    return text


def _stream(manifests: Iterable[Manifest]) -> Iterator[yaml.Event]:
    yield yaml.StreamStartEvent()
    for number, manifest in enumerate(manifests):
        yield yaml.DocumentStartEvent(explicit=number > 0)
        yield from _events(manifest)
        yield yaml.DocumentEndEvent(explicit=False)
    yield yaml.StreamEndEvent()


def _events(value: Json) -> Iterator[yaml.Event]:
    """In block style, without anchors: the same value twice is written twice."""
    if isinstance(value, dict):
        yield yaml.MappingStartEvent(None, None, implicit=True, flow_style=False)
        for key, inner in value.items():
            yield _text(key)
            yield from _events(inner)
        yield yaml.MappingEndEvent()
    elif isinstance(value, list):
        yield yaml.SequenceStartEvent(None, None, implicit=True, flow_style=False)
        for inner in value:
            yield from _events(inner)
        yield yaml.SequenceEndEvent()
    elif isinstance(value, str):
        yield _text(value)
    else:
        # By identity: 1 == True.
        word = next((word for each, word in _WORDS if value is each), str(value))
        yield yaml.ScalarEvent(None, None, (True, False), word)


def _text(text: str) -> yaml.Event:
    return yaml.ScalarEvent(None, None, (True, True), text, style=_style(text))


@lru_cache(maxsize=4096)
def _style(text: str) -> str | None:
    """Plain where every reader agrees that it is this string, a block where it has lines or is JSON, else quoted."""
    if _UNUSUAL.search(text) or _AMBIGUOUS.fullmatch(text) or text.startswith(("\n", " ")) or text.endswith("\n\n"):
        return '"'
    return "|" if "\n" in text or text.startswith("{") else None
