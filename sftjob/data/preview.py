"""Rows as the model will see them: text, divided where training begins and ends."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from sftjob.data.masks import IGNORED, Encoded, encode_batch
from sftjob.data.messages import Row
from sftjob.data.problems import Problems
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.spec.data import TrainOn

Kind = Literal["context", "trained", "cut"]


@dataclass(frozen=True)
class Segment:
    """Neighbouring tokens of one kind."""

    text: str
    kind: Kind
    """`context` is read and not trained, `trained` is, `cut` lies beyond `max_length`."""


@dataclass(frozen=True)
class PreviewRow:
    """One row of the file, or the part of it that has a row of its own."""

    id: str
    tokens: int
    """All of them, those beyond `max_length` included."""
    trained: int
    """Within `max_length`."""
    segments: tuple[Segment, ...]


def preview(tokenizer: ChatTokenizer, rows: Sequence[Row], *, train_on: TrainOn, max_length: int) -> list[PreviewRow]:
    """Shows rows as they go into training, each whole; what is done with overlong ones is not shown.

    Raises:
        ConfigurationError: the template and the tokenizer do not fit each other.
        DataError: the template refuses a row.
    """
    problems = Problems()
    encoded = encode_batch(tokenizer, rows, train_on=train_on, problems=problems)
    problems.raise_any()
    return [_preview(tokenizer, row, whole, max_length) for row, whole in encoded]


def _preview(tokenizer: ChatTokenizer, row: Row, whole: Encoded, max_length: int) -> PreviewRow:
    kinds = list(_kinds(whole, max_length))
    return PreviewRow(
        id=row.id,
        tokens=len(kinds),
        trained=kinds.count("trained"),
        segments=tuple(_segments(tokenizer, whole.input_ids, kinds)),
    )


def _kinds(whole: Encoded, max_length: int) -> Iterator[Kind]:
    for place, label in enumerate(whole.labels):
        if place >= max_length:
            yield "cut"
        else:
            yield "context" if label == IGNORED else "trained"


def _segments(tokenizer: ChatTokenizer, ids: Sequence[int], kinds: Sequence[Kind]) -> Iterator[Segment]:
    """Decoded piece by piece: what is decoded up to a border, less what was decoded up to the one before.

    Tokenizers that mark the beginning of a text would eat a blank at each border otherwise.
    """
    done, end = "", 0
    for kind, group in groupby(kinds):
        end += sum(1 for _ in group)
        text = tokenizer.decode(ids[:end])
        # A character may lie across the border; it is shown with its second half.
        whole = text.rstrip("\ufffd") if end < len(ids) else text
        yield Segment(whole[len(done) :], kind)
        done = whole
