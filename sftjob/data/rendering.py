"""Conversations → texts, with the places in them that are trained: no template is edited.

An assistant's turn reaches from the end of the generation prompt, which is rendered from the messages before it, to the
token that ends the turn; what a template writes after that token (usually a line break) is not trained. Both ends are
found by rendering beginnings of the conversation, so they hold for the whole text only where it begins in the same
way. Some templates rewrite earlier turns (they drop thoughts, or move the system message to the last question). Then
each trained turn becomes a row of its own, which is what the model sees when it is asked for that turn.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sftjob.data.messages import Message, Row
from sftjob.data.template import TemplateRefusal
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import ConfigurationError, DataError
from sftjob.spec.data import TrainOn

_USE_CHATML: Final = "set data.template: chatml"
_THOUGHTS_END: Final = "</think>"


@dataclass(frozen=True)
class TextSpan:
    """Characters [start, end) of a rendered text whose tokens are trained."""

    start: int
    end: int
    role: str
    stop: bool
    """They end with the token that ends the turn."""


@dataclass(frozen=True)
class Rendered:
    """A conversation, or a part of one, as text."""

    row: Row
    text: str
    spans: tuple[TextSpan, ...] = ()
    """Ascending."""
    cuts: tuple[int, ...] = ()
    """Characters at which a trained turn's generation prompt ends: inference begins a new token there."""
    trained: frozenset[int] = frozenset()
    """Positions of the trained turns among the messages."""


def render_row(tokenizer: ChatTokenizer, row: Row, train_on: TrainOn) -> list[Rendered]:
    """The texts of a conversation: one, or one for each trained turn where the template rewrites earlier turns.

    Args:
        tokenizer: Tokenizer and template.
        row: A conversation.
        train_on: `assistant` trains the assistant's turns, `last_assistant` the last of them, `all` everything up to
            the last turn's end. A message's own `train` flag overrules it.

    Raises:
        ConfigurationError: the template writes a turn otherwise than it prompts for it, or without an end token.
        DataError: the row contains control tokens, or the template refuses it or leaves out some of it.
    """
    _check_control_tokens(row, tokenizer.control_tokens)
    try:
        texts = [_render_all(tokenizer, row)] if train_on == "all" else _render_turns(tokenizer, row, train_on)
    except TemplateRefusal as error:
        raise DataError(
            f"the chat template refuses the conversation: {error}",
            file=row.file,
            line=row.line,
            field=row.field("messages"),
            hint=f"change the row, or {_USE_CHATML}",
        ) from error
    for text in texts:
        _check_nothing_left_out(text)
    return texts


def _check_control_tokens(row: Row, control_tokens: re.Pattern[str]) -> None:
    """A control token that is typed in a text would become the real one: the row could end its own turn."""
    for field, text in _texts(row):
        if match := control_tokens.search(text):
            raise DataError(
                f"contains the tokenizer's control token {match.group()}",
                file=row.file,
                line=row.line,
                field=row.field(field),
                hint="remove it or spell it otherwise",
            )


def _texts(row: Row) -> Iterator[tuple[str, str]]:
    """All that a template may write, by field."""
    for position, message in enumerate(row.messages):
        yield f"messages.{position}.content", message.content
        if message.reasoning_content:
            yield f"messages.{position}.reasoning_content", message.reasoning_content
        for number, call in enumerate(message.tool_calls):
            texts = json.dumps([call.name, call.arguments, call.id], ensure_ascii=False)
            yield f"messages.{position}.tool_calls.{number}", texts
        for name in ("name", "tool_call_id"):
            if text := getattr(message, name):
                yield f"messages.{position}.{name}", text
    for number, tool in enumerate(row.tools):
        yield f"tools.{number}", json.dumps(tool, ensure_ascii=False)


@dataclass(frozen=True)
class _Turn:
    """A trained turn in the text of the conversation up to it."""

    position: int
    start: int
    end: int
    text: str

    def rendered(self, row: Row) -> Rendered:
        span = TextSpan(self.start, self.end, "assistant", stop=True)
        return Rendered(row, self.text, (span,), (self.start,), frozenset((self.position,)))


def _render_turns(tokenizer: ChatTokenizer, row: Row, train_on: TrainOn) -> list[Rendered]:
    text = tokenizer.render(row.messages, tools=row.tools)
    turns = [_turn(tokenizer, row, position, text) for position in _trained(row.messages, train_on)]
    if all(text.startswith(turn.text[: turn.end]) for turn in turns):
        spans = tuple(TextSpan(turn.start, turn.end, "assistant", stop=True) for turn in turns)
        starts, positions = tuple(turn.start for turn in turns), frozenset(turn.position for turn in turns)
        return [Rendered(row, text, spans, starts, positions)]
    return [turn.rendered(row.up_to(turn.position + 1, part=part)) for part, turn in enumerate(turns, 1)]


def _trained(messages: Sequence[Message], train_on: TrainOn) -> list[int]:
    turns = [position for position, message in enumerate(messages) if message.role == "assistant"]
    chosen = turns[-1:] if train_on == "last_assistant" else turns
    return [at for at in turns if (at in chosen if messages[at].train is None else messages[at].train)]


def _turn(tokenizer: ChatTokenizer, row: Row, position: int, whole: str) -> _Turn:
    prompt = tokenizer.render(row.messages[:position], tools=row.tools, add_generation_prompt=True)
    last = position == len(row.messages) - 1
    text = whole if last else tokenizer.render(row.messages[: position + 1], tools=row.tools)
    if not text.startswith(prompt):
        raise _refusal(
            row,
            f"the chat template rewrites the turn that it prompts for: the prompt before message {position} is no"
            " beginning of the answered text",
        )
    return _Turn(position, len(prompt), _turn_end(tokenizer, row, text, len(prompt)), text)


def _turn_end(tokenizer: ChatTokenizer, row: Row, text: str, start: int) -> int:
    """Where the token that ends a text's last turn ends."""
    stop = tokenizer.find_stop(text, start)
    if stop is None:
        raise _refusal(
            row, "the chat template leaves a trained turn without an end token, so the model would never learn to stop"
        )
    return stop[1]


def _refusal(row: Row, reason: str) -> ConfigurationError:
    return ConfigurationError(reason, file=row.file, line=row.line, field="data.template", hint=_USE_CHATML)


def _render_all(tokenizer: ChatTokenizer, row: Row) -> Rendered:
    """Everything is trained as it is rendered, so nothing depends on how earlier turns look when they are asked for.

    A message's tokens are those between the end of the message before it and its own. Where its end cannot be told
    (a system message that is folded into the question), they count as the next one's.
    """
    text = tokenizer.render(row.messages, tools=row.tools)
    spans: list[TextSpan] = []
    cuts: list[int] = []
    start, unknown = 0, False
    for position, message in enumerate(row.messages):
        prompt = ""
        if message.role == "assistant":
            prompt = tokenizer.render(row.messages[:position], tools=row.tools, add_generation_prompt=True)
        end = _message_end(tokenizer, row, position, text, start=start, prompt=prompt)
        found = end is not None and end > start
        trained = message.role != "assistant" or message.train is not False
        if not trained and (unknown or not found):
            raise _refusal(
                row, f"the chat template rewrites earlier turns, so that message {position} cannot be left untrained"
            )
        unknown = not found
        if end is None or unknown:
            continue
        if trained:
            spans.append(TextSpan(start, end, message.role, stop=message.role == "assistant"))
            cuts += [len(prompt)] if prompt and text.startswith(prompt) else []
        start = end
    positions = _trained(row.messages, "all")
    return Rendered(row, text, tuple(spans), tuple(cuts), frozenset(positions))


def _message_end(
    tokenizer: ChatTokenizer, row: Row, position: int, text: str, *, start: int, prompt: str
) -> int | None:
    """Where a message ends in the whole text, at or after `start`; None where nothing tells."""
    message, last = row.messages[position], position == len(row.messages) - 1
    try:
        beginning = text if last else tokenizer.render(row.messages[: position + 1], tools=row.tools)
    except TemplateRefusal:
        return None
    if message.role == "assistant":
        ends = [_turn_end(tokenizer, row, beginning, len(prompt) if beginning.startswith(prompt) else 0)]
    else:
        # Some templates end every text with a token of its own.
        ends = [len(beginning), *(begin for begin, _ in tokenizer.trailing_controls(beginning, start))]
    shared = next((end for end in ends if text.startswith(beginning[:end])), None)
    return shared or _searched_end(tokenizer, message, text, start)


def _searched_end(tokenizer: ChatTokenizer, message: Message, text: str, start: int) -> int | None:
    """The control token after a message's text: contents hold none."""
    if message.role == "system":
        return None  # one that was moved is no turn of its own
    places = ((text.find(form, start), form) for form in _forms(_without_thoughts(message)))
    after = next((at + len(form) for at, form in places if at >= 0), None)
    if after is None:
        return None
    controls = tokenizer.control_tokens.finditer(text, after)
    if message.role == "assistant":
        controls = (match for match in controls if tokenizer.token_id(match.group()) in tokenizer.stop_token_ids)
    return next((match.end() for match in controls), None)


def _check_nothing_left_out(rendered: Rendered) -> None:
    """Templates pass over what they do not know: a role, tools, thoughts. A row must not lose any of it in silence.

    Each piece has to be there as often as it was written, in itself and in other pieces: a `5` that is only found in
    `5 results` is lost.
    """
    written = [(field, text.strip()) for field, text in _contents(rendered) if text and not text.isspace()]
    text = _Haystack(rendered.text)
    for field, form in written:
        needed = sum(other.count(form) for _, other in written)
        if not text.holds(form, needed):
            row = rendered.row
            raise DataError(
                "the chat template leaves it out",
                file=row.file,
                line=row.line,
                field=row.field(field),
                hint=f"change the row, or {_USE_CHATML}",
            )


def _contents(rendered: Rendered) -> Iterator[tuple[str, str]]:
    """All that has to be in the text, by field."""
    for number, tool in enumerate(rendered.row.tools):
        function = tool.get("function", tool)
        if isinstance(function, dict) and isinstance(name := function.get("name"), str):
            yield f"tools.{number}", name
    for position, message in enumerate(rendered.row.messages):
        trained = position in rendered.trained
        # Thoughts are for the turn that they lead to; dropping them afterwards is what such templates are for.
        yield f"messages.{position}.content", message.content if trained else _without_thoughts(message)
        if trained:
            yield f"messages.{position}.reasoning_content", message.reasoning_content
        for number, call in enumerate(message.tool_calls):
            field = f"messages.{position}.tool_calls.{number}"
            yield field, call.name
            yield from ((field, leaf) for leaf in _leaves(call.arguments))


def _leaves(value: object) -> Iterator[str]:
    """The texts and whole numbers in a call's arguments; other numbers may be written in several ways."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)


def _without_thoughts(message: Message) -> str:
    return message.content.rpartition(_THOUGHTS_END)[2] if message.role == "assistant" else message.content


class _Haystack:
    """A text in which others are looked for, whatever the blanks, as they are or as JSON strings."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._dense: str | None = None

    def holds(self, written: str, times: int) -> bool:
        if self._text.count(written) >= times:
            return True
        if self._dense is None:
            self._dense = _dense(self._text)
        return sum(self._dense.count(form) for form in set(map(_dense, _forms(written)))) >= times


def _forms(written: str) -> Iterator[str]:
    """How a text may be written: trimmed, as it is or as a JSON string."""
    stripped = written.strip()
    yield stripped
    for ascii in (False, True):
        yield json.dumps(stripped, ensure_ascii=ascii)[1:-1]


def _dense(text: str) -> str:
    return "".join(text.split())
