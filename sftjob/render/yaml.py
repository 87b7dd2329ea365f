"""Manifests as YAML for people and for every reader: keys in their own order, no string that a reader could misread."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import yaml

from sftjob.render.manifest import Manifest

if TYPE_CHECKING:
    _Base = yaml.SafeDumper
else:
    # The same bytes, ten times as fast, where PyYAML was built with libyaml.
    _Base = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_AMBIGUOUS: Final = re.compile(
    r"[-+]?[.0-9][-+.:0-9a-f_xotz ]*|[-+]?\.?(inf|nan)|y|n|yes|no|on|off|true|false|null|~|=|<<|", re.IGNORECASE
)
"""Whatever some YAML 1.1 or 1.2 reader takes for a number, date, boolean or null, and a little more."""
_UNUSUAL: Final = re.compile(r"[^\n -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]")
"""Characters that emitters write differently or that some readers take for line breaks; they are escaped."""
_ONE_LINE: Final = 2**30
"""Never fold: a folded command cannot be searched for."""


def manifests_yaml(manifests: Iterable[Manifest]) -> str:
    """The objects as one YAML stream; the same objects give the same bytes."""
    return "---\n".join(
        yaml.dump(manifest, Dumper=ManifestDumper, sort_keys=False, allow_unicode=True, width=_ONE_LINE)
        for manifest in manifests
    )


class ManifestDumper(_Base):
    """A dumper of its own, so that no setting of PyYAML itself changes."""

    def ignore_aliases(self, data: object) -> bool:
        """Never an anchor: the same value twice is written twice."""
        return True


def represent_str(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Plain where every reader agrees that it is this string, a block where it has lines or is JSON, else quoted."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=_style(text))


def _style(text: str) -> str | None:
    if _UNUSUAL.search(text) or _AMBIGUOUS.fullmatch(text) or text.startswith(("\n", " ")) or text.endswith("\n\n"):
        return '"'
    return "|" if "\n" in text or text.startswith("{") else None


ManifestDumper.add_representer(str, represent_str)
