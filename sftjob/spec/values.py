"""Which values may stand in a spec or profile, whatever the file's syntax, and how they are shown in messages.

The rules keep three readers in agreement: this one, Helm's YAML and the container's JSON. What passes here has the same
RFC 8785 bytes everywhere, so a run has one id.
"""

import json
import re
from dataclasses import dataclass
from typing import Final, TypeAlias

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"]
"""JSON without null: a key that has nothing to say is left out."""

MAX_BYTES: Final = 128 * 1024
"""Of a spec, as a file and as canonical JSON: it travels in a ConfigMap, an apply annotation and a Helm release."""
MAX_DEPTH: Final = 20
MAX_NODES: Final = 10_000
"""Values in one file, keys included; more are no spec, and reading them takes seconds."""
MAX_NUMBER: Final = 2**53 - 1
"""Largest number whose neighbours are exact in JSON readers that know only doubles, Helm's among them."""
_SHOWN: Final = 60
"""Characters of a value that a message shows at most."""
_MAX_KEY: Final = 317
"""Longest label key of Kubernetes: a DNS name of 253, a slash and 63."""

_BAD_CHARACTER: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_KEY: Final = re.compile(r"[!-~]([ -~]*[!-~])?")


@dataclass(frozen=True)
class Refusal:
    """Why a value may not stand where it stands, and what to write instead."""

    reason: str
    hint: str = ""


_SECRETS: Final = (
    (
        re.compile(r"hf_[A-Za-z0-9]{20,}"),
        Refusal(
            "looks like a Hugging Face token",
            "secrets only by reference: `hf auth login` keeps it here, `hub_token_secret` of the profile on a cluster",
        ),
    ),
    (
        re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"),
        Refusal(
            "looks like an AWS access key",
            "secrets only by reference: the environment here, `credentials_secret` of the profile on a cluster",
        ),
    ),
    (
        re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@]+@"),
        Refusal(
            "is an address with a user or password in it",
            "secrets only by reference: delete what stands before the `@`",
        ),
    ),
)


def secret_refusal(text: str) -> Refusal | None:
    """Whether a string is or holds a secret, by its shape. The refusal does not repeat it."""
    return next((refusal for pattern, refusal in _SECRETS if pattern.search(text)), None)


def text_refusal(text: str) -> Refusal | None:
    """Why a string may not be a value."""
    if refusal := secret_refusal(text):
        return refusal
    if bad := _BAD_CHARACTER.search(text):
        return Refusal(f"holds the character U+{ord(bad[0]):04X}", "delete it: only printable text, tab and newline")
    return None


def number_refusal(number: float, text: str) -> Refusal | None:
    """Why a number may not be a value; `text` is how it was written."""
    if not abs(number) <= MAX_NUMBER:  # NaN, too
        return Refusal(
            f"{shown(text)} is beyond 2^53, where readers lose digits", "use a smaller number, or quotes if it is text"
        )
    if number == 0 and text.startswith("-"):
        return Refusal(f"{shown(text)} is a negative zero", "write `0`")
    return None


def key_refusal(key: str) -> Refusal | None:
    """Why a string may not be a key."""
    if refusal := secret_refusal(key):
        return Refusal(f"a key {refusal.reason}", refusal.hint)
    if len(key) > _MAX_KEY:
        return Refusal(f"key {shown(key)} has {len(key)} characters", f"use at most {_MAX_KEY}")
    if not _KEY.fullmatch(key):
        return Refusal(f"key {shown(key)} is not plain", "use printable ASCII characters without spaces around them")
    return None


def shown(value: object) -> str:
    """A value as messages show it: one line, at most 60 characters, lists and mappings by their kind alone."""
    match value:
        case str():
            return f"`{clip(json.dumps(value, ensure_ascii=not value.isprintable())[1:-1])}`"
        case bool() | int() | float():
            return clip(json.dumps(value))
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
    return "nothing" if value is None else f"a {type(value).__name__}"


def clip(text: str) -> str:
    """The first 60 characters, with `…` for what is left out."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
