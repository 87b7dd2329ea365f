"""Whole reports as text; after a wanted change write the new text into golden/ and read the difference."""

from pathlib import Path
from typing import Any

import pytest

from sftjob.records import Metric
from sftjob.report import report
from sftjob.report.markdown import CURVE_ROWS, LONGEST_TEXT, escape

GOLDEN = Path(__file__).parent / "golden"


def test_one_run(make_evaluation: Any) -> None:
    assert report([make_evaluation()]).markdown == (GOLDEN / "one_run.md").read_text(encoding="utf-8")


def test_three_runs(make_evaluation: Any) -> None:
    runs = [
        make_evaluation(),
        make_evaluation(name="hot", settings={"training.learning_rate": 1e-3, "method.type": "lora"}),
        make_evaluation(name="whole", method="full", trainable_parameters=204_800, settings={"method.type": "full"}),
    ]
    assert report(runs).markdown == (GOLDEN / "three_runs.md").read_text(encoding="utf-8")


def test_nothing_held_out(make_evaluation: Any) -> None:
    unscored = make_evaluation(
        scores=(), answers=tuple(a for a in make_evaluation().answers if a.reference is None), metrics=()
    )
    text = report([unscored]).markdown
    assert "nothing was scored" in text
    assert "Loss" not in text
    assert "Pipes" in text


def test_without_exact_match_there_is_no_row_and_no_interval(make_evaluation: Any) -> None:
    scores = tuple(score.model_copy(update={"exact_match": None, "generated": 0}) for score in make_evaluation().scores)
    text = report([make_evaluation(scores=scores, answers=())]).markdown
    assert "Tuning takes loss from 2.5000 to 0.2500 on 4 held-out rows." in text
    assert "Exact match" not in text
    assert "interval" not in text
    assert "Side by side" not in text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a | b", r"a \| b"),
        ("one\ntwo\r\nthree\u2028four", "one<br>two<br>three<br>four"),
        ("<script>&amp;", "&lt;script&gt;&amp;amp;"),
        (r"**bold** _it_ `code` [x](y) \| ~s~ $m$", r"\*\*bold\*\* \_it\_ \`code\` \[x\](y) \\\| \~s\~ \$m\$"),
    ],
)
def test_text_never_becomes_markup(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_every_table_row_has_as_many_cells_as_its_head(make_evaluation: Any) -> None:
    tables = [block for block in report([make_evaluation()]).markdown.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 8
    for table in tables:
        cells = {line.replace(r"\|", "").count("|") for line in table.splitlines()}
        assert len(cells) == 1, table


def test_a_long_answer_is_cut_and_says_so(make_evaluation: Any) -> None:
    first = make_evaluation()
    long = first.answers[-1].model_copy(update={"answer": "x" * (LONGEST_TEXT + 7)})
    text = report([make_evaluation(answers=(*first.answers[:-1], long))]).markdown
    assert " " + "x" * LONGEST_TEXT + " … (7 more characters)" in text


def test_a_long_curve_keeps_first_and_last_step(make_evaluation: Any) -> None:
    lines = tuple(Metric(attempt=1, step=step, epoch=0.0, loss=1.0, loss_hex="", time="") for step in range(1, 1001))
    text = report([make_evaluation(metrics=lines)]).markdown
    rows = [line for line in text.splitlines() if line.endswith("|  |  |  |")]
    assert len(rows) == CURVE_ROWS
    assert rows[0].startswith("| 1 |")
    assert rows[-1].startswith("| 1,000 |")
