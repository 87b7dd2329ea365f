"""Rows that are too long: nothing that is trained gets lost unless it is counted."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftjob.data.encoded import IGNORED, Encoded, TrainedSpan
from sftjob.data.lengths import fit_length

ROW = Encoded(
    input_ids=[10, 11, 12, 13, 14, 15, 16, 17],
    labels=[IGNORED, IGNORED, 12, 13, IGNORED, 15, 16, IGNORED],
    straddling=2,
    spans=(TrainedSpan(2, 4, "assistant", stop=True), TrainedSpan(5, 7, "assistant", stop=True)),
)


@pytest.mark.parametrize("overlong", ["truncate", "split", "drop"])
@pytest.mark.parametrize("max_length", [8, 9, 100])
def test_a_row_that_is_short_enough_stays_as_it_is(overlong: str, max_length: int) -> None:
    [same] = fit_length(ROW, max_length, overlong)  # type: ignore[arg-type]
    assert same is ROW


def test_truncated() -> None:
    [cut] = fit_length(ROW, 6, "truncate")
    assert cut == Encoded(
        input_ids=[10, 11, 12, 13, 14, 15],
        labels=[IGNORED, IGNORED, 12, 13, IGNORED, 15],
        truncated=True,
        straddling=2,
        spans=(TrainedSpan(2, 4, "assistant", stop=True), TrainedSpan(5, 6, "assistant", stop=False)),
    )
    assert fit_length(ROW, 2, "truncate")[0].spans == ()


def test_split_rows_overlap_by_one_token() -> None:
    assert fit_length(ROW, 4, "split") == (
        Encoded([10, 11, 12, 13], [IGNORED, IGNORED, 12, 13], straddling=2, spans=ROW.spans[:1]),
        Encoded([13, 14, 15, 16], [IGNORED, IGNORED, 15, 16], spans=(TrainedSpan(2, 4, "assistant", stop=True),)),
        Encoded([16, 17], [IGNORED, IGNORED]),
    )
    # 15 is trained here although it is first there.
    first, second = fit_length(ROW, 6, "split")
    assert (first.input_ids[-1], first.labels[-1]) == (15, 15)
    assert second == Encoded([15, 16, 17], [IGNORED, 16, IGNORED], spans=(TrainedSpan(1, 2, "assistant", stop=True),))


def test_dropped() -> None:
    assert fit_length(ROW, 7, "drop") == ()


def test_one_token_teaches_nothing() -> None:
    with pytest.raises(ValueError, match="no token of so short a row"):
        fit_length(ROW, 1, "split")


def test_roles_are_counted_from_the_spans() -> None:
    row = Encoded(
        [1, 2, 3], [IGNORED, 2, 3], spans=(TrainedSpan(1, 2, "user", False), TrainedSpan(2, 3, "tool", False))
    )
    assert row.trained_by_role == {"user": 1, "tool": 1}
    assert row.trained_tokens == 2


@st.composite
def _rows(draw: st.DrawFn) -> Encoded:
    mask = [False, *draw(st.lists(st.booleans(), max_size=40))]
    edges = [at for at in range(1, len(mask) + 1) if mask[at - 1] != (at < len(mask) and mask[at])]
    spans = tuple(
        TrainedSpan(start, end, "assistant", stop=True)
        for start, end in zip([0, *edges], edges, strict=False)
        if mask[start]
    )
    ids = list(range(100, 100 + len(mask)))
    return Encoded(ids, [id if on else IGNORED for id, on in zip(ids, mask, strict=True)], spans=spans)


@given(_rows(), st.integers(2, 45))
def test_split_keeps_every_label_once(row: Encoded, max_length: int) -> None:
    parts = fit_length(row, max_length, "split")
    # Ids are all different here, so an id stands for its place.
    assert Counter(label for part in parts for label in part.labels if label != IGNORED) == Counter(
        label for label in row.labels if label != IGNORED
    )
    assert sum(part.trained_by_role.get("assistant", 0) for part in parts) == row.trained_tokens
    assert sum(span.stop for part in parts for span in part.spans) == len(row.spans)
    assert [id for part in parts for id in part.input_ids[1:]] == row.input_ids[1:]
    for part in parts:
        assert 2 <= len(part.input_ids) <= max_length or part is row
        assert part.labels[0] == IGNORED
        for span in part.spans:
            assert part.labels[span.start : span.end] == part.input_ids[span.start : span.end]
