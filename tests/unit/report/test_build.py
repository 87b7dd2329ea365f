from typing import Any

from sftjob.report import report
from sftjob.report.build import SHOWN


def test_the_best_of_a_row_is_strong(make_evaluation: Any) -> None:
    rows = {
        row[0].text: [cell.strong for cell in row[1:]] for row in report([make_evaluation()]).document.headline.rows
    }
    assert rows["Loss"] == rows["Token accuracy"] == rows["Exact match"] == [False, False, True]
    assert rows["95 % interval"] == rows["Steps"] == [False, False, False]


def test_where_all_are_alike_none_is_strong(make_evaluation: Any) -> None:
    scores = tuple(score.model_copy(update={"exact_match": 0.0}) for score in make_evaluation().scores)
    rows = {row[0].text: row[1:] for row in report([make_evaluation(scores=scores)]).document.headline.rows}
    assert not any(cell.strong for cell in rows["Exact match"])


def test_the_base_answers_where_it_does_best(make_evaluation: Any) -> None:
    exchange = report([make_evaluation()]).document.exchanges[0]
    assert [reply.text for reply in exchange.replies] == ["It is\na | pipe.", "Pipes **run** <b>deep</b>."]
    plain, template = make_evaluation().scores[1], make_evaluation().scores[0]
    swapped = (
        template.model_copy(update={"prompt_format": "plain"}),
        plain.model_copy(update={"prompt_format": "template"}),
        make_evaluation().scores[2],
    )
    assert report([make_evaluation(scores=swapped)]).document.exchanges[0].replies[0].text == ""


def test_exact_match_is_credited_to_answers_and_loss_to_rows(make_evaluation: Any) -> None:
    scores = tuple(score.model_copy(update={"rows": 900}) for score in make_evaluation().scores)
    lead = report([make_evaluation(scores=scores)]).document.lead
    assert lead == (
        "Tuning takes exact match from 25.0 % to 75.0 % on 4 answers "
        "and loss from 2.5000 to 0.2500 on 900 held-out rows."
    )
    several = report([make_evaluation(scores=scores), make_evaluation(name="other", scores=scores)]).document.lead
    assert several.startswith("On the same 4 answers, exact match: base 25.0 %")


def test_loss_over_other_tokens_is_said(make_evaluation: Any) -> None:
    scores = make_evaluation().scores
    other = (scores[0], scores[1].model_copy(update={"trained_tokens": 32}), scores[2])
    assert "(32 there, 36 under the template)" in " ".join(report([make_evaluation(scores=other)]).document.reading)


def test_runs_of_one_name_are_told_apart_by_their_id(make_evaluation: Any) -> None:
    runs = [make_evaluation(), make_evaluation(run_id="sums-ffffffff")]
    assert report(runs).document.headline.head[-2:] == ("sums-1a2b3c4d", "sums-ffffffff")


def test_exchanges_beyond_the_shown_ones_are_counted(make_evaluation: Any) -> None:
    one = make_evaluation().answers[-1]
    many = tuple(one.model_copy(update={"id": f"test.jsonl:{number}"}) for number in range(SHOWN + 3))
    made = report([make_evaluation(answers=many)])
    assert len(made.document.exchanges) == SHOWN
    assert made.document.left_out == 3
    assert f"test.jsonl:{SHOWN + 2}" in made.json


def test_a_base_that_scored_otherwise_is_named(make_evaluation: Any) -> None:
    scores = make_evaluation().scores
    other = (scores[0], scores[1].model_copy(update={"loss": 2.6}), scores[2])
    text = " ".join(report([make_evaluation(), make_evaluation(name="other", scores=other)]).document.reading)
    assert "2.5000 in sums-1a2b3c4d (shown) but 2.6000 in other-1a2b3c4d" in text


def test_overlapping_intervals_are_named_and_distant_ones_are_not(make_evaluation: Any) -> None:
    assert "may be chance: base and tuned" in " ".join(report([make_evaluation()]).document.reading)
    sure = tuple(
        score.model_copy(update={"generated": 400, "exact_match": 0.9 if score.model == "tuned" else 0.1})
        for score in make_evaluation().scores
    )
    text = " ".join(report([make_evaluation(scores=sure)]).document.reading)
    assert "400 greedy answers" in text
    assert "chance" not in text
    assert "small sample" not in text
