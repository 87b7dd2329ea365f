"""What becomes of rows that are longer than the model may see."""

from collections.abc import Iterator

from sftjob.data.encoded import IGNORED, Encoded, TrainedSpan
from sftjob.spec.data import Overlong


def fit_length(encoded: Encoded, max_length: int, overlong: Overlong) -> tuple[Encoded, ...]:
    """Makes rows of at most `max_length` tokens of one row.

    Args:
        encoded: A whole row.
        max_length: Tokens, at least 2.
        overlong: `truncate` cuts off the end of a longer row, `split` makes several rows of it, `drop` leaves it out.
            Split rows overlap by one token: the first of a row cannot be trained, so it is the last of the row before.

    Returns:
        None for a dropped row, several for a split one. A row that is short enough is returned as it is. Only rows
        that lost tokens are `truncated`. `straddling` of a split row stays with its first part.
    """
    if max_length < 2:
        raise ValueError(f"max_length is {max_length}; no token of so short a row can be trained")
    length = len(encoded.input_ids)
    if length <= max_length:
        return (encoded,)
    if overlong == "drop":
        return ()
    if overlong == "truncate":
        return (_part(encoded, 0, max_length, truncated=True),)
    starts = range(0, length - 1, max_length - 1)
    return tuple(_part(encoded, start, min(start + max_length, length), truncated=False) for start in starts)


def _part(encoded: Encoded, start: int, end: int, *, truncated: bool) -> Encoded:
    return Encoded(
        input_ids=encoded.input_ids[start:end],
        labels=[IGNORED, *encoded.labels[start + 1 : end]],
        truncated=truncated,
        straddling=encoded.straddling if start == 0 else 0,
        spans=tuple(_clip(encoded.spans, start, end)),
    )


def _clip(spans: tuple[TrainedSpan, ...], start: int, end: int) -> Iterator[TrainedSpan]:
    for span in spans:
        first, last = max(span.start, start + 1), min(span.end, end)
        if first < last:
            yield TrainedSpan(first - start, last - start, span.role, span.stop and last == span.end)
