"""Does a generated answer equal its reference? Pure text, without torch."""

import re
from typing import Final

from sftjob.errors import SpecError

_THOUSANDS: Final = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_FIELD: Final = "evaluation.generation.answer_pattern"


def compile_answer_pattern(pattern: str | None) -> re.Pattern[str] | None:
    """Compiles `answer_pattern`; None stays None: whole texts are compared.

    Raises:
        SpecError: no regular expression, or one without a group.
    """
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SpecError(
            f"not a regular expression: {error}",
            field=_FIELD,
            hint=r"write one as Python's `re` reads it, e.g. '#### (.+)'",
        ) from error
    if not compiled.groups:
        raise SpecError(
            "has no group to take the answer from",
            field=_FIELD,
            hint="put parentheses around the answer, e.g. '#### (.+)'",
        )
    return compiled


def matches(answer: str, reference: str, pattern: re.Pattern[str] | None) -> bool:
    """Whether both texts hold the same answer.

    An answer in which the pattern finds nothing never matches; such a reference is taken as a whole, since data sets
    often give the bare result.
    """
    given = extract(answer, pattern)
    if given is None:
        return False
    wanted = extract(reference, pattern)
    return given == (normalise(reference) if wanted is None else wanted)


def extract(text: str, pattern: re.Pattern[str] | None) -> str | None:
    """The normalised first group of the pattern's last match, or None; without a pattern the whole text."""
    if pattern is None:
        return normalise(text)
    found = [match.group(1) for match in pattern.finditer(text)]
    return normalise(found[-1]) if found and found[-1] is not None else None


def normalise(text: str) -> str:
    """Runs of white space become one blank, ends are trimmed, and commas between thousands go: `1,234` is `1234`.

    Case, punctuation and units stay: what else should not count belongs into the pattern.
    """
    return _THOUSANDS.sub("", " ".join(text.split()))
