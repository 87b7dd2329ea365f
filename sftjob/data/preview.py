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


def preview(
    tokenizer: ChatTokenizer, rows: Sequence[Row], *, train_on: TrainOn, max_length: int, problems: Problems
) -> list[PreviewRow]:
    """Shows rows as they go into training, each whole; what is done with overlong ones is not shown.

    Args:
        tokenizer: tokenizer and template.
        rows: conversations and texts.
        train_on: which turns are trained.
        max_length: tokens of a row.
        problems: gets the rows that the template refuses; the others are shown.

    Raises:
        ConfigurationError: the template and the tokenizer do not fit each other.
    """
    encoded = encode_batch(tokenizer, rows, train_on=train_on, problems=problems)
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
        yield Segment(_visible(whole[len(done) :]), kind)
        done = whole


def _visible(text: str) -> str:
    """Control characters as their pictures: a row must not steer the terminal of who looks at it."""
    return "".join(chr(0x2400 + ord(each)) if each < " " and each not in "\n\t" else each for each in text)
