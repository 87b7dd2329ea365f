"""The messages of a conversation, in ChatML's words or ShareGPT's, and the order in which they may stand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from sftjob.data.formats.fields import Columns, Fields, NotJson, Report, checked_text, json_in, known_word
from sftjob.data.formats.tools import UNREADABLE, read_calls
from sftjob.data.messages import ROLES, Message, Role, ToolCall
from sftjob.data.raw_rows import JsonObject, json_type

FUNCTION_CALL: Final = "function_call"
SHAREGPT_ROLES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bard", "bing", FUNCTION_CALL), "assistant"),
    "system": "system",
    **dict.fromkeys(("observation", "tool"), "tool"),
}
CHATML_ROLES: Final[Mapping[str, str]] = {role: role for role in ROLES}
OTHER_KEYS: Final = ("tool_calls", "tool_call_id", "name", "reasoning_content", "train", "weight")
"""Keys of a message beside its role and content."""


@dataclass(frozen=True)
class Turn:
    """A message and the path of the field that says whose it is."""

    message: Message
    field: str


def read_turns(fields: Fields, value: object, field: str, *, sharegpt: bool = False) -> list[Turn]:
    """Takes a list of messages; what is wrong with them is reported to `fields`.

    Args:
        fields: The row.
        value: The list, or a JSON string of one, as a CSV file has to write it.
        field: Where it stands.
        sharegpt: Whether roles and keys are ShareGPT's unless a message says otherwise.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json_in(value)
        except NotJson as error:
            fields.report(field, str(error))
            return []
    if not isinstance(value, list):
        fields.report(field, f"must be a list of messages, not {json_type(value)}")
        return []
    if not value:
        fields.report(field, "no messages")
    return [
        _turn(item, f"{field}.{position}", fields.columns, sharegpt, fields.report)
        for position, item in enumerate(value)
    ]


def with_system(fields: Fields, turns: Sequence[Turn]) -> list[Turn]:
    """Puts the text of the column `system`, if there is one, before the conversation."""
    text = fields.optional_text("system")
    if not text:
        return list(turns)
    field = fields.name("system")
    if turns and turns[0].message.role == "system":
        fields.report(field, "the conversation has a system message of its own", "keep one of them")
        return list(turns)
    return [Turn(Message("system", text), field), *turns]


def check_order(fields: Fields, turns: Sequence[Turn], field: str) -> tuple[Message, ...]:
    """The messages, after a look at their order: a system message first, tools after calls, an answer last."""
    messages = [turn.message for turn in turns]
    for before, turn in zip([None, *messages], turns, strict=False):
        if turn.message.role == "system" and before:
            fields.report(turn.field, "a system message must come first")
        if turn.message.role == "tool" and not (before and (before.role == "tool" or before.tool_calls)):
            fields.report(turn.field, "a tool answers where none was called", "it follows a turn with `tool_calls`")
    answers = [message for message in messages if message.role == "assistant"]
    if turns and not answers:
        fields.report(field, "no assistant turn", "a row needs an answer to learn from")
    elif turns and messages[-1].role != "assistant":
        fields.report(turns[-1].field, "the last turn must be the assistant's")
    elif turns and all(answer.train is False for answer in answers):
        fields.report(field, "no assistant turn may be trained", "a row needs an answer to learn from")
    return tuple(messages)


@dataclass(frozen=True)
class _Words:
    """How a message is written."""

    role: str
    content: str
    roles: Mapping[str, str]


def _words(turn: JsonObject, columns: Columns, sharegpt: bool) -> _Words:
    """A message with `role` is taken as such under `conversations`, one with `from` as such under `messages`."""
    other = "role" if sharegpt else "from"
    as_sharegpt = sharegpt != (other in turn and ("from" if sharegpt else "role") not in turn)
    role, content = ("from", "value") if as_sharegpt else ("role", "content")
    roles = SHAREGPT_ROLES if sharegpt or as_sharegpt else CHATML_ROLES
    return _Words(columns.get("role", role), columns.get("content", content), roles)


@dataclass(frozen=True)
class _Item:
    """A message as it is written, and where."""

    value: JsonObject
    words: _Words
    field: str
    report: Report

    @property
    def content(self) -> object:
        return self.value.get(self.words.content)

    @property
    def content_field(self) -> str:
        return f"{self.field}.{self.words.content}"

    @property
    def role_field(self) -> str:
        return f"{self.field}.{self.words.role}"

    def refuse(self, key: str, reason: str, hint: str = "") -> None:
        self.report(f"{self.field}.{key}", reason, hint)


def _turn(turn: object, field: str, columns: Columns, sharegpt: bool, report: Report) -> Turn:
    if not isinstance(turn, dict):
        keys = "`from` and `value`" if sharegpt else "`role` and `content`"
        report(field, f"must be an object with {keys}, not {json_type(turn)}")
        return Turn(_UNREADABLE, field)
    item = _Item(turn, _words(turn, columns, sharegpt), field, report)
    known = (item.words.role, item.words.content, *OTHER_KEYS)
    for key in turn:
        if key not in known and turn[key] is not None:
            item.refuse(key[:30], "not supported in a message", f"it may have {_listed(known)}")
    return Turn(_message(item), item.role_field)


_UNREADABLE: Final = Message("assistant", "", UNREADABLE)
"""Stands for a message that was reported, so that nothing is wrong with the order for its sake."""


def _message(item: _Item) -> Message:
    written = _role(item)
    if written is None:
        return _UNREADABLE
    role = cast("Role", item.words.roles[written])
    # Nearly all messages have nothing but these two keys.
    if len(item.value) == 2 and item.words.content in item.value and written != FUNCTION_CALL:
        return Message(role, _content(item, role, has_calls=False))
    calls = _calls(item, role)
    if written == FUNCTION_CALL:
        if calls:
            item.refuse("tool_calls", "a second place for calls", "keep those in the text")
        content, calls = "", _called(item)
    else:
        content = _content(item, role, has_calls=bool(calls))
    return Message(
        role,
        content,
        calls,
        reasoning_content=_optional(item, "reasoning_content", role, ("assistant",)),
        name=_optional(item, "name", role, ROLES) or None,
        tool_call_id=_optional(item, "tool_call_id", role, ("tool",)) or None,
        train=_train(item, role),
    )


def _role(item: _Item) -> str | None:
    role, roles = item.value.get(item.words.role), item.words.roles
    if isinstance(role, str) and role in roles:
        return role
    hint = f"use {_listed(roles, last='or', quote='')}"
    if item.words.role not in item.value:
        item.report(item.role_field, "missing", hint)
    elif not isinstance(role, str):
        item.report(item.role_field, f"must be a string, not {json_type(role)}", hint)
    else:
        item.report(item.role_field, f"unknown role{known_word(role)}", hint)
    return None


def _listed(words: Iterable[str], *, last: str = "and", quote: str = "`") -> str:
    *first, end = (f"{quote}{word}{quote}" for word in words)
    return f"{', '.join(first)} {last} {end}"


def _calls(item: _Item, role: str) -> tuple[ToolCall, ...]:
    value = item.value.get("tool_calls")
    if value is None or value == []:
        return ()
    if role != "assistant":
        item.refuse("tool_calls", "only the assistant calls tools")
        return ()
    return read_calls(value, f"{item.field}.tool_calls", item.report)


def _called(item: _Item) -> tuple[ToolCall, ...]:
    """The calls in the text of a ShareGPT `function_call`."""
    value = item.content
    if isinstance(value, str):
        try:
            value = json_in(value)
        except NotJson as error:
            item.report(item.content_field, str(error), "write the call as {name, arguments}")
            return UNREADABLE
    calls = read_calls(value, item.content_field, item.report)
    if not calls:
        item.report(item.content_field, "no call")
        return UNREADABLE
    return calls


def _content(item: _Item, role: str, *, has_calls: bool) -> str:
    value = item.content
    if value is None and has_calls:
        return ""
    if item.words.content not in item.value:
        item.report(item.content_field, "missing")
        return ""
    if isinstance(value, list):
        value = _joined(value, item.content_field, item.report)
        if value is None:
            return ""
    # A tool may have nothing to say, and an assistant that calls one need not.
    return checked_text(value, item.content_field, item.report, may_be_empty=has_calls or role == "tool")


def _joined(parts: Sequence[object], field: str, report: Report) -> str | None:
    """The text of OpenAI's content parts, `{type: text, text: …}`; None where something was reported."""
    texts = [_part(part, f"{field}.{position}", report) for position, part in enumerate(parts)]
    return None if None in texts else "".join(text for text in texts if text)


_ONLY_TEXT: Final = "only parts of type `text` can be trained"


def _part(part: object, field: str, report: Report) -> str | None:
    if not isinstance(part, dict):
        report(field, f"must be an object with `type` and `text`, not {json_type(part)}")
        return None
    kind, text = part.get("type"), part.get("text")
    if kind != "text":
        word = known_word(kind) if isinstance(kind, str) else ""
        report(f"{field}.type", f"a part of type{word}" if word else "a part of an unknown type", _ONLY_TEXT)
        return None
    if not isinstance(text, str):
        report(f"{field}.text", f"must be a string, not {json_type(text)}")
        return None
    return text


def _optional(item: _Item, key: str, role: str, roles: Sequence[str]) -> str:
    value = item.value.get(key)
    if value is None or value == "":
        return ""
    if role not in roles:
        item.refuse(key, f"not for the role `{role}`")
        return ""
    return checked_text(value, f"{item.field}.{key}", item.report)


def _train(item: _Item, role: str) -> bool | None:
    """The flag `train`, or OpenAI's `weight`, which is 0 or 1."""
    train, weight = item.value.get("train"), item.value.get("weight")
    if train is not None and not isinstance(train, bool):
        item.refuse("train", f"must be true or false, not {json_type(train)}")
        return None
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        item.refuse("weight", "must be 0 or 1")
        return None
    if train is not None and weight is not None and train != bool(weight):
        item.refuse("weight", "contradicts `train`", "keep one of them")
        return None
    flag = bool(weight) if train is None and weight is not None else train
    if flag and role != "assistant":
        item.refuse("weight" if train is None else "train", f"a turn of the role `{role}` is not trained")
        return None
    return flag
