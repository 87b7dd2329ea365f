"""The audit: counts, histogram, duplicates, overlap, and what it refuses."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from sftjob.data.audit import SplitTally, findings, length_bin, make_audit
from sftjob.data.masks import Encoded
from sftjob.data.messages import Message, Row, ToolCall
from sftjob.records import Audit
from sftjob.spec import Data

SPECIAL = 7


def _row(ask: str, answer: str = "yes", *, line: int = 1, copy: int = 0) -> Row:
    return Row((Message("user", ask), Message("assistant", answer)), file="f", line=line, copy=copy)


def _tally(rows: Sequence[Row], encoded: Sequence[Encoded] = ()) -> SplitTally:
    tally = SplitTally()
    for row in rows:
        tally.add_row(row)
    for each in encoded:
        tally.add_encoded(each, (each,))
    return tally


def _encoded(labels: Sequence[int], *spans: object) -> Encoded:
    return Encoded(list(range(len(labels))), list(labels), spans=spans)  # type: ignore[arg-type]


def test_bins_grow_by_a_third_and_a_half() -> None:
    bins = sorted({length_bin(length) for length in range(1, 5000)})
    assert bins[:6] == [16, 24, 32, 48, 64, 96]
    assert all(length_bin(length) >= length for length in range(1, 5000))
    assert all(length_bin(up_to) == up_to and length_bin(up_to + 1) == above for up_to, above in pairwise(bins))


class TestFingerprints:
    def test_equal_conversations_are_duplicates(self) -> None:
        rows = [_row("a", line=1), _row("a", line=2), _row("a", "no", line=3), _row("b", line=4)]
        assert _tally(rows).audit().duplicates == 1

    def test_tools_and_calls_tell_conversations_apart(self) -> None:
        def call(argument: str, tool: str) -> Row:
            messages = (Message("user", "a"), Message("assistant", "", tool_calls=(ToolCall("f", {"x": argument}),)))
            return Row(messages, file="f", line=1, tools=({"type": "function", "function": {"name": tool}},))

        assert _tally([call("1", "f"), call("2", "f"), call("1", "g")]).audit().duplicates == 0
        assert _tally([call("1", "f"), call("1", "f")]).audit().duplicates == 1

    def test_a_copy_in_a_mix_is_no_duplicate(self) -> None:
        tally = _tally([_row("a"), _row("a", copy=1)])
        assert (tally.audit().duplicates, tally.counts["rows"], tally.counts["repeated"]) == (0, 1, 1)

    @pytest.mark.parametrize(
        ("trained", "held_out", "overlap"),
        [
            (_row("What is it?"), _row("what  IS\nit?", "no"), 1),
            (_row("What is it?"), _row("What is it!", "yes"), 0),
            (Row((), file="f", line=1, text="A b"), Row((), file="g", line=1, text="a B"), 1),
            (Row((), file="f", line=1, text="user: a"), _row("a"), 1),
            (
                Row((Message("system", "s"), *_row("a").messages), file="f", line=1),
                _row("a"),
                0,
            ),
        ],
    )
    def test_overlap_is_about_the_question(self, trained: Row, held_out: Row, overlap: int) -> None:
        audit = make_audit({"train": _tally([trained]), "eval": _tally([held_out])})
        assert audit.overlap == overlap
        assert audit.overlap_rows == ((held_out.id,) if overlap else ())

    def test_training_asks_in_every_turn_and_holding_out_in_the_last(self) -> None:
        long = Row((*_row("a").messages, *_row("b").messages), file="g", line=1)
        assert make_audit({"train": _tally([_row("a")]), "eval": _tally([long])}).overlap == 0
        assert make_audit({"train": _tally([long]), "eval": _tally([long])}).overlap == 1
        assert make_audit({"train": _tally([long]), "eval": _tally([_row("a")])}).overlap == 1

    def test_rows_in_which_nobody_asks_are_told_apart_by_their_answers(self) -> None:
        def story(text: str) -> Row:
            return Row((Message("system", "Tell."), Message("assistant", text)), file="f", line=1)

        assert make_audit({"train": _tally([story("a")]), "eval": _tally([story("b")])}).overlap == 0
        assert make_audit({"train": _tally([story("a")]), "eval": _tally([story("a")])}).overlap == 1


def _span(start: int, end: int, role: str = "assistant", *, stop: bool = True) -> object:
    from sftjob.data.masks import TrainedSpan  # noqa: PLC0415

    return TrainedSpan(start, end, role, stop)


def _findings(encoded: Encoded, *, train_on: str = "assistant", rows: int = 1) -> list[str]:
    tally = _tally([_row("a", line=line) for line in range(rows)], [encoded] * rows)
    data = Data.model_validate_json(f'{{"train": [{{"path": "f"}}], "train_on": "{train_on}"}}')
    audit = make_audit({"train": tally})
    return [
        problem.field + ": " + problem.reason
        for problem in findings({"train": tally}, audit, files={"train": "f"}, data=data, max_length=9)
    ]


class TestFindings:
    def test_nothing_is_wrong(self) -> None:
        assert _findings(_encoded([-100, -100, 2, 3], _span(2, 4))) == []

    def test_nothing_is_trained(self) -> None:
        assert _findings(_encoded([-100, -100])) == [
            "training.max_length: no row of `train` keeps a trained token within 9 tokens"
        ]

    def test_everything_is_trained(self) -> None:
        encoded = _encoded([-100, 1, 2], _span(1, 3))
        assert _findings(encoded) == ["data.template: every token of `train` is trained, the questions too"]
        assert _findings(encoded, train_on="all") == []

    def test_a_text_may_be_trained_whole(self) -> None:
        assert _findings(_encoded([-100, 1, 2], _span(1, 3, "text", stop=False))) == []

    def test_no_end_is_trained(self) -> None:
        assert _findings(_encoded([-100, -100, 2], _span(2, 3, stop=False))) == [
            "training.max_length: no answer of `train` is trained up to its end within 9 tokens: it would never stop"
        ]

    @pytest.mark.parametrize(("share", "refused"), [(0.0, True), (0.24, True), (0.25, False), (1.0, False)])
    def test_overlap_above_the_share(self, share: float, *, refused: bool) -> None:
        fine = _encoded([-100, -100, 2, 3], _span(2, 4))
        tallies = {
            "train": _tally([_row("a")], [fine]),
            "eval": _tally([_row(ask, line=line) for line, ask in enumerate("abcd")], [fine]),
        }
        data = Data.model_validate_json(f'{{"train": [{{"path": "f"}}], "max_overlap": {share}}}')
        found = list(
            findings(
                tallies, make_audit(tallies), files={"train": "t.jsonl", "eval": "e.jsonl"}, data=data, max_length=9
            )
        )
        assert [str(problem) for problem in found] == refused * [
            "e.jsonl: data.max_overlap: 1 of 4 held-out rows (25.0%) ask what training rows ask, too: f:0; "
            f"take them out of one of the two, or raise data.max_overlap above {share:g}"
        ]


def test_tallies_add_up() -> None:
    rows = [_row("a", line=1), _row("b", line=2), _row("a", line=3)]
    encoded = [_encoded([-100, 1, 2], _span(2, 3)), _encoded([-100, -100]), _encoded([-100] * 3 + [3], _span(3, 4))]
    parts = [_tally([row], [each]) for row, each in zip(rows, encoded, strict=True)]
    whole = _tally(rows, encoded)
    sum_ = SplitTally()
    for part in parts:
        sum_.merge(part)
    assert sum_.audit() == whole.audit()
    audit = whole.audit()
    assert (audit.counts.kept, audit.counts.without_trained_token, audit.counts.longest) == (2, 1, 4)
    assert audit.trained_by_role == {"assistant": 2}
    assert [(bin.up_to, bin.rows) for bin in audit.lengths] == [(16, 3)]
    assert Audit.model_validate_json(make_audit({"train": whole}).to_json()) == make_audit({"train": whole})
