import pytest

from sftjob.errors import SpecError
from sftjob.evaluate.match import compile_answer_pattern, extract, matches, normalise

HASHES = compile_answer_pattern("#### (.+)")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("2 + 2 is 4.\n#### 4", "4"),
        ("#### 3\nno, wait\n####  5 \n", "5"),
        ("so it is\n#### 1,234,567", "1234567"),
        ("no answer", None),
    ],
)
def test_extract(text: str, answer: str | None) -> None:
    assert extract(text, HASHES) == answer


def test_a_group_that_took_no_part_is_no_answer() -> None:
    assert extract("yes", compile_answer_pattern("yes|no(t)?")) is None


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  a \t b\n\nc ", "a b c"),
        ("1,234", "1234"),
        ("12,345,678.90 and 1,2", "12345678.90 and 1,2"),
        ("1,2345", "1,2345"),
        ("Yes.", "Yes."),
    ],
)
def test_normalise(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("first #### 7\nthen #### 18", "so #### 18", True),
        ("#### 18", "18", True),
        ("18", "#### 18", False),
        ("", "", False),
        ("#### 1,000", "#### 1000", True),
        ("#### 18.", "#### 18", False),
    ],
)
def test_matches_with_a_pattern(answer: str, reference: str, same: bool) -> None:
    assert matches(answer, reference, HASHES) is same


def test_matches_whole_texts_without_a_pattern() -> None:
    assert matches(" Paris\n", "Paris", None)
    assert not matches("Paris, France", "Paris", None)


@pytest.mark.parametrize(("pattern", "reason"), [("(", "not a regular expression"), ("#### .+", "has no group")])
def test_a_bad_pattern_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as refused:
        compile_answer_pattern(pattern)
    assert refused.value.problems[0].field == "evaluation.generation.answer_pattern"


def test_no_pattern_is_none() -> None:
    assert compile_answer_pattern(None) is None
