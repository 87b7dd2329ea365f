"""Conversations → token ids and labels, with masks from message boundaries: no template is edited.

An assistant's turn reaches from the end of the generation prompt, which is rendered from the messages before it, to the
token that ends the turn; what a template writes after that token (usually a line break) is not trained. Boundaries are
found by rendering beginnings of the conversation, so each must be a beginning of the whole text: a template that
rewrites earlier turns is refused.

The whole text is tokenised once, and a token is trained when it lies within a trained turn. A token that straddles the
beginning of a turn (a line break of the prompt merged with one of the answer) is neither. Such a text is tokenised in
pieces, cut there, which is what inference does: first the prompt alone, then the answer. Where that would change the
text (tokenizers that mark the beginning of every piece), the token stays whole, is not trained, and is counted.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Final, Literal

from sftjob.data.messages import Message, Row
from sftjob.data.problems import Problems
from sftjob.data.template import TemplateRefusal
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import ConfigurationError, DataError

TrainOn = Literal["assistant", "all"]
IGNORED: Final = -100
"""Label of a token that is not trained (`ignore_index` of torch's cross entropy)."""
BATCH_ROWS: Final = 512

_USE_CHATML: Final = "set data.template: chatml"


@dataclass(frozen=True)
class Encoded:
    """One row as the model sees it."""

    input_ids: list[int]
    labels: list[int]
    """As long as `input_ids`: the id where it is trained, `IGNORED` elsewhere. The first is always ignored: nothing
    comes before it from which it could be predicted."""
    truncated: bool = False
    straddling: int = 0
    """Tokens that are part prompt and part answer, and therefore not trained."""

    @property
    def trained_tokens(self) -> int:
        return len(self.labels) - self.labels.count(IGNORED)


def encode_rows(
    tokenizer: ChatTokenizer, rows: Iterable[Row], *, train_on: TrainOn = "assistant", max_length: int | None = None
) -> Iterator[tuple[Row, Encoded]]:
    """Yields each row with its ids and labels, in order, batch by batch on all cores.

    Args:
        tokenizer: Tokenizer and template.
        rows: Conversations.
        train_on: `assistant` trains the assistant's turns; `all` trains everything up to the last turn's end.
        max_length: Tokens after which a row is cut off.

    Raises:
        ConfigurationError: the template rewrites earlier turns, or leaves a trained turn without an end token.
        DataError: at the end, all rows that the template refuses or whose text contains control tokens.
    """
    control = re.compile("|".join(map(re.escape, sorted(tokenizer.special_texts, key=len, reverse=True))) or r"(?!)")
    problems = Problems()
    for batch in _batches(rows):
        rendered: list[_Rendered] = []
        for row in batch:
            try:
                _check_control_tokens(row, control)
                rendered.append(_render(tokenizer, row, train_on))
            except DataError as error:
                problems.add_row(error.problems)
        encodings = tokenizer.encode_batch([item.text for item in rendered])
        for item, encoding in zip(rendered, encodings, strict=True):
            yield item.row, _encode(tokenizer, item, _Tokens(encoding.ids, encoding.offsets), max_length)
    problems.raise_any()


def encode_messages(
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    *,
    train_on: TrainOn = "assistant",
    max_length: int | None = None,
) -> Encoded:
    """As `encode_rows`, for one conversation that comes from no file."""
    row = Row(tuple(messages), file="", line=0)
    [(_, encoded)] = encode_rows(tokenizer, [row], train_on=train_on, max_length=max_length)
    return encoded


@dataclass(frozen=True)
class _Turn:
    """Characters [start, end) of a rendered text in which tokens are trained, up to the last control token in it."""

    start: int
    end: int


@dataclass(frozen=True)
class _Rendered:
    row: Row
    text: str
    turns: tuple[_Turn, ...]


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, BATCH_ROWS)):
        yield batch


def _check_control_tokens(row: Row, control: re.Pattern[str]) -> None:
    """A control token that is typed in a text would become the real one: the row could end its own turn."""
    for position, message in enumerate(row.messages):
        if match := control.search(message.content):
            raise DataError(
                f"contains the tokenizer's control token {match.group()}",
                file=row.file,
                line=row.line,
                field=row.field(f"messages.{position}.content"),
                hint="remove it or spell it otherwise",
            )


def _render(tokenizer: ChatTokenizer, row: Row, train_on: TrainOn) -> _Rendered:
    messages = row.messages
    try:
        text = tokenizer.render(messages)
        if train_on == "all":
            return _Rendered(row, text, (_Turn(0, len(text)),))
        turns = []
        for position, message in enumerate(messages):
            if message.role != "assistant":
                continue
            prompt = tokenizer.render(messages[:position], add_generation_prompt=True)
            answered = text if position == len(messages) - 1 else tokenizer.render(messages[: position + 1])
            _require_prefix(prompt, text, row, f"the prompt before message {position}")
            _require_prefix(answered, text, row, f"the text up to message {position}")
            turns.append(_Turn(len(prompt), len(answered)))
    except TemplateRefusal as error:
        raise DataError(
            f"the chat template refuses the conversation: {error}",
            file=row.file,
            line=row.line,
            field=row.field("messages"),
            hint=f"change the row, or {_USE_CHATML}",
        ) from error
    return _Rendered(row, text, tuple(turns))


def _require_prefix(part: str, text: str, row: Row, what: str) -> None:
    if text.startswith(part):
        return
    raise ConfigurationError(
        f"the chat template rewrites earlier turns: {what} is no beginning of the whole text",
        file=row.file,
        line=row.line,
        field="data.template",
        hint=_USE_CHATML,
    )


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


def _encode(tokenizer: ChatTokenizer, rendered: _Rendered, tokens: _Tokens, max_length: int | None) -> Encoded:
    cuts = [turn.start for turn in rendered.turns if tokens.straddle(turn.start)]
    if cuts:
        tokens = _in_pieces(tokenizer, rendered.text, cuts, tokens)
    labels = [IGNORED] * len(tokens.ids)
    for turn in rendered.turns:
        first, stop = tokens.first_at(turn.start), _stop_index(tokenizer, rendered, turn, tokens)
        labels[first : stop + 1] = tokens.ids[first : stop + 1]
    labels[:1] = [IGNORED]
    return Encoded(
        input_ids=tokens.ids[:max_length],
        labels=labels[:max_length],
        truncated=max_length is not None and len(labels) > max_length,
        straddling=sum(tokens.straddle(turn.start) for turn in rendered.turns),
    )


def _in_pieces(tokenizer: ChatTokenizer, text: str, cuts: Sequence[int], whole: _Tokens) -> _Tokens:
    edges = [0, *cuts, len(text)]
    encodings = tokenizer.encode_batch([text[start:end] for start, end in pairwise(edges)])
    pieces = list(zip(encodings, edges[:-1], strict=True))
    ids = [id for encoding, _ in pieces for id in encoding.ids]
    if tokenizer.decode(ids) != tokenizer.decode(whole.ids):
        return whole
    return _Tokens(ids, [(start + at, end + at) for encoding, at in pieces for start, end in encoding.offsets])


def _stop_index(tokenizer: ChatTokenizer, rendered: _Rendered, turn: _Turn, tokens: _Tokens) -> int:
    """Index of the token that ends a turn: its last control token, with nothing but blanks after it."""
    for index in range(tokens.first_at(turn.end) - 1, tokens.first_at(turn.start) - 1, -1):
        if tokens.ids[index] in tokenizer.special_ids:
            if rendered.text[tokens.offsets[index][1] : turn.end].strip():
                break
            return index
    raise ConfigurationError(
        "the chat template leaves a trained turn without an end token, so the model would never learn to stop",
        file=rendered.row.file,
        line=rendered.row.line,
        field="data.template",
        hint=_USE_CHATML,
    )
