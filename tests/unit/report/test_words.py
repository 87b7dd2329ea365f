import sys

import pytest

from sftjob.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0 %"), (0.000041, "0.0041 %"), (0.0042, "0.42 %"), (0.753, "75.3 %"), (1.0, "100.0 %")],
)
def test_share(value: float, text: str) -> None:
    assert words.share(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.52196, "1.522"), (492.749, "492.7"), (12345.6, "12,346"), (2.5e6, "> 10^6"), (sys.float_info.max, "> 10^308")],
)
def test_perplexity(value: float, text: str) -> None:
    assert words.perplexity(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (42.31, "42.3 s"), (60, "1 min"), (5025.2, "1 h 23 min 45 s"), (3600, "1 h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_plural_and_enumeration() -> None:
    assert words.plural(1, "row") == "1 row"
    assert words.plural(1200, "row") == "1,200 rows"
    assert words.enumeration(("a", "b", "c")) == "a, b and c"
    assert words.enumeration(("a",)) == "a"
