"""Conversations → token ids and labels, with masks from message boundaries (see `sftjob.data.rendering`).

The whole text is tokenised once, and a token is trained when it begins within a trained turn. A token that straddles
the beginning of a turn (a line break of the prompt merged with one of the answer) is neither. Such a text is tokenised
in pieces, cut there, which is what inference does: first the prompt alone, then the answer. Where that would change the
text (tokenizers that mark the beginning of every piece), the token stays whole, is not trained, and is counted.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sftjob.data.encoded import IGNORED, Encoded, TrainedSpan
from sftjob.data.lengths import fit_length
from sftjob.data.messages import Message, Row, Tool
from sftjob.data.plain import label_text, trim_text
from sftjob.data.problems import Problems
from sftjob.data.rendering import Rendered, render_row
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import ConfigurationError, DataError
from sftjob.spec.data import TrainOn

__all__ = ["IGNORED", "Encoded", "TrainedSpan", "encode_batch", "encode_messages"]


def encode_batch(
    tokenizer: ChatTokenizer, rows: Sequence[Row], *, train_on: TrainOn, problems: Problems
) -> list[tuple[Row, Encoded]]:
    """Ids and labels of some rows, whole and in order, tokenised on all cores.

    Args:
        tokenizer: Tokenizer and template.
        rows: Conversations and plain texts.
        train_on: `assistant` trains the assistant's turns, `last_assistant` the last of them, `all` everything up to
            the last turn's end. A message's own `train` flag overrules it. Plain texts are trained whole.
        problems: Gets the rows that cannot be used: the template refuses them or leaves out some of them, or they
            contain control tokens.

    Returns:
        Each row with what it became. Where the template rewrites earlier turns, a row becomes several, one for each
        trained turn (`Row.part`).

    Raises:
        ConfigurationError: the template writes a turn otherwise than it prompts for it, or without an end token.
    """
    rendered: list[Rendered] = []
    for row in rows:
        try:
            rendered += _render(tokenizer, row, train_on)
        except DataError as error:
            if not row.copy:  # the further copies of a row in a mix are the same mistake
                problems.add_row(error.problems)
    encodings = tokenizer.encode_batch([item.text for item in rendered])
    return [
        (item.row, _encode(tokenizer, item, _Tokens(encoding.ids, encoding.offsets)))
        for item, encoding in zip(rendered, encodings, strict=True)
    ]


def encode_messages(
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] = (),
    train_on: TrainOn = "assistant",
    max_length: int | None = None,
) -> Encoded:
    """As `encode_batch`, for one conversation that comes from no file, cut off after `max_length` tokens.

    Raises:
        ConfigurationError: as `encode_batch`, and where the conversation becomes several rows.
        DataError: the conversation cannot be used.
    """
    problems = Problems()
    row = Row(tuple(messages), file="", line=0, tools=tuple(tools))
    encoded = encode_batch(tokenizer, [row], train_on=train_on, problems=problems)
    problems.raise_any()
    if len(encoded) != 1:
        raise ConfigurationError(
            "the chat template rewrites earlier turns, so the conversation is several rows",
            field="data.template",
            hint="set data.template: chatml",
        )
    [(_, whole)] = encoded
    return whole if max_length is None else fit_length(whole, max_length, "truncate")[0]


def _render(tokenizer: ChatTokenizer, row: Row, train_on: TrainOn) -> list[Rendered]:
    if row.text is None:
        return render_row(tokenizer, row, train_on)
    return [Rendered(row, trim_text(tokenizer, row.text))]


@dataclass(frozen=True)
class _Tokens:
    ids: list[int]
    offsets: list[tuple[int, int]]
    """Characters [start, end) of the text that each token covers; ascending."""

    def first_at(self, character: int) -> int:
        """Index of the first token that starts at or after a character."""
        return bisect_left(self.offsets, character, key=_start)

    def straddle(self, character: int) -> bool:
        """A token starts before the character and ends after it."""
        index = self.first_at(character)
        return index > 0 and self.offsets[index - 1][1] > character


def _start(offsets: tuple[int, int]) -> int:
    return offsets[0]


def _encode(tokenizer: ChatTokenizer, rendered: Rendered, tokens: _Tokens) -> Encoded:
    if rendered.row.text is not None:
        return label_text(tokenizer, tokens.ids)
    if cuts := [cut for cut in rendered.cuts if _must_cut(tokenizer, rendered.text, cut, tokens)]:
        tokens = _in_pieces(tokenizer, rendered.text, cuts, tokens)
    spans = tuple(_spans(tokenizer, rendered, tokens))
    labels = [IGNORED] * len(tokens.ids)
    for span in spans:
        labels[span.start : span.end] = tokens.ids[span.start : span.end]
    beginnings = {span.start for span in rendered.spans}
    straddling = sum(tokens.straddle(cut) for cut in rendered.cuts if cut in beginnings)
    return Encoded(input_ids=tokens.ids, labels=labels, straddling=straddling, spans=spans)


def _must_cut(tokenizer: ChatTokenizer, text: str, cut: int, tokens: _Tokens) -> bool:
    """The prompt alone would end in other tokens: one straddles its end, or blanks at its end are split otherwise."""
    if tokens.straddle(cut):
        return True
    blanks = cut - len(text[:cut].rstrip())
    if blanks < 2:
        return False
    first, end = tokens.first_at(cut - blanks), tokens.first_at(cut)
    return tokens.ids[first:end] != tokenizer.encode(text[cut - blanks : cut])


def _in_pieces(tokenizer: ChatTokenizer, text: str, cuts: Sequence[int], whole: _Tokens) -> _Tokens:
    edges = [0, *cuts, len(text)]
    encodings = tokenizer.encode_batch([text[start:end] for start, end in pairwise(edges)])
    pieces = list(zip(encodings, edges[:-1], strict=True))
    ids = [id for encoding, _ in pieces for id in encoding.ids]
    if tokenizer.decode(ids) != tokenizer.decode(whole.ids):
        return whole
    return _Tokens(ids, [(start + at, end + at) for encoding, at in pieces for start, end in encoding.offsets])


def _spans(tokenizer: ChatTokenizer, rendered: Rendered, tokens: _Tokens) -> Iterator[TrainedSpan]:
    for span in rendered.spans:
        first, end = max(tokens.first_at(span.start), 1), tokens.first_at(span.end)
        if span.stop and tokens.ids[end - 1] not in tokenizer.special_ids:
            raise ConfigurationError(
                "the tokenizer does not keep the token that ends a turn whole",
                file=rendered.row.file,
                line=rendered.row.line,
                field="data.template",
                hint="use the tokenizer that the model was trained with",
            )
        if first < end:
            yield TrainedSpan(first, end, span.role, span.stop)
