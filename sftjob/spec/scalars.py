"""Unquoted YAML scalars: what YAML 1.2 makes of them, unless another reader in the chain would disagree.

PyYAML reads YAML 1.1, Helm and kubectl a mixture, editors 1.2. What they all read alike is taken: `true` and `false`,
decimal integers and floats (`2e-4` included, which PyYAML alone takes for text), and text. The rest is refused:

    y yes n no on off     booleans in 1.1 (any case)            ~ null (nothing)   different from a missing key
    0755                  octal in 1.1, decimal in 1.2           .inf .nan          no JSON
    0x1F 0o17 0b1         different sets of prefixes             2026-01-31         a date in 1.1
    1_000                 1000 in 1.1                            = <<               special in 1.1
    1:30                  90 in 1.1                              -0, beyond 2^53    not exact in JSON
    -.5                   text to PyYAML alone
"""

import re
from typing import Final

from sftjob.spec.values import Refusal, number_refusal, shown

_BOOLEANS: Final = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_YES: Final = frozenset({"y", "yes", "on"})
_NO: Final = frozenset({"n", "no", "off"})
_INTEGER: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
_FLOAT: Final = re.compile(r"(\.[0-9]+|[-+]?(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_MAX_DIGITS: Final = 400
"""Python refuses to convert integers of some thousands of digits; all of these are beyond 2^53 anyway."""

_SOME: Final = "to some YAML readers and text to others"
_QUOTE: Final = "put it in quotes"
_AMBIGUOUS: Final = (
    (
        re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE),
        "is not a finite number",
        "write a number, or leave the key out",
    ),
    (
        re.compile(r"\d{4}-\d{1,2}-\d{1,2}(?:$|[Tt]\d.*|[ \t]+\d.*)", re.ASCII),
        f"is a date {_SOME}",
        _QUOTE,
    ),
    (
        re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?", re.ASCII),
        f"is a number {_SOME}",
        _QUOTE,
    ),
    (
        re.compile(r"[-+]?0(x[0-9a-f_]+|o[0-7_]+|b[01_]+)", re.ASCII | re.IGNORECASE),
        f"is a number {_SOME}",
        "write it in decimal digits, or in quotes",
    ),
    (
        re.compile(r"[-+]?0[0-9_]+(\.[0-9_]*)?([eE][-+]?[0-9_]+)?", re.ASCII),
        "is octal to some YAML readers and decimal to others",
        "write it without leading zeros, or in quotes",
    ),
    (
        re.compile(r"[-+]\.[0-9]+([eE][-+]?[0-9]+)?", re.ASCII),
        f"is a number {_SOME}",
        "write `0` before the point, or put it in quotes",
    ),
    (
        re.compile(r"[-+]?(\.[0-9]|[0-9])[0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9_]+)?", re.ASCII),
        f"is a number {_SOME}",
        "write it without underscores, or in quotes",
    ),
    (re.compile(r"=|<<"), "has a meaning of its own in YAML", _QUOTE),
)


def plain_scalar(text: str) -> bool | int | float | str | Refusal:
    """The value of an unquoted scalar, or why it is refused. Its text is not checked as a string here."""
    if text in _NULLS:
        return Refusal("has no value", "give it one, or leave the key out")
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text.lower() in _YES | _NO:
        meaning = "true" if text.lower() in _YES else "false"
        return Refusal(f"{shown(text)} is {meaning} {_SOME}", f"write `{meaning}`, or put it in quotes")
    if _FLOAT.fullmatch(text):
        return _number(text)
    for pattern, reason, hint in _AMBIGUOUS:
        if pattern.fullmatch(text):
            return Refusal(f"{shown(text)} {reason}", hint)
    return text


def _number(text: str) -> int | float | Refusal:
    if len(text) > _MAX_DIGITS or not _INTEGER.fullmatch(text):
        number: int | float = float(text)
    else:
        number = int(text)
    return number_refusal(number, text) or number
