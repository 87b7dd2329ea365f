from typing import Any

import pytest

from sftjob.errors import SpecError
from sftjob.report import report


def test_runs_on_the_same_base_and_rows_are_compared(make_evaluation: Any) -> None:
    other = make_evaluation(name="other", data_digest="d" * 64, method="full")
    assert report([make_evaluation(), other]).document.headline.head[-2:] == ("sums", "other")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base_identity": "someone/large@" + "c" * 40}, "differ in their base model: someone/tiny@cccc"),
        ({"held_out_digest": "e" * 64}, "differ in their held-out data: bbbb"),
        ({"held_out_digest": ""}, "differ in their held-out data"),
        ({"settings": {"evaluation.generation.answer_pattern": "(x)"}}, r"answer pattern: none against \(x\)"),
        ({"settings": {"evaluation.generation.max_new_tokens": 9}}, "length of answers: none against 9"),
    ],
)
def test_apples_and_pears_are_refused(make_evaluation: Any, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as refused:
        report([make_evaluation(), make_evaluation(name="pears", **changes)])
    assert "sums-1a2b3c4d and pears-1a2b3c4d" in str(refused.value)


def test_all_differences_are_named(make_evaluation: Any) -> None:
    with pytest.raises(SpecError) as refused:
        report([make_evaluation(), make_evaluation(name="pears", base_identity="x", held_out_digest="y")])
    assert len(refused.value.problems) == 2


def test_nothing_to_report_is_refused() -> None:
    with pytest.raises(SpecError, match="no evaluation"):
        report([])
