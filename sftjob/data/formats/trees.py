"""Trees of messages, as OpenAssistant publishes them: `oasst`. A tree becomes one conversation."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from sftjob.data.formats.fields import Fields, RowFormat, checked_text, known_word
from sftjob.data.messages import Message, Role, Row
from sftjob.data.problems import Problems
from sftjob.data.raw_rows import JsonObject, json_type
from sftjob.errors import Problem
from sftjob.spec.data import Column

_ROLES: Final[dict[str, Role]] = {"prompter": "user", "assistant": "assistant"}
_FLAT: Final[tuple[Column, ...]] = ("message_id", "role", "text")
_OPTIONAL: Final[tuple[Column, ...]] = ("parent_id", "rank")
_OF_MESSAGES: Final = frozenset({"message_id", "parent_id", "role", "text", "rank"})
_ANSWER: Final = "a row needs an answer to learn from"


@dataclass(frozen=True)
class Oasst(RowFormat):
    """A file of whole trees, or of messages that name their parents; its first row tells which."""

    def fits(self, fields: Fields) -> bool:
        return isinstance(fields.get("prompt"), dict) or all(fields.has(column) for column in _FLAT)

    def rows(self, rows: Iterable[Fields], problems: Problems) -> Iterator[Row]:
        iterator = iter(rows)
        first = next(iterator, None)
        if first is None:
            return
        every = chain([first], iterator)
        if first.has("prompt") and not first.has("message_id"):
            yield from RowFormat(self.columns, ("prompt",), self.convert, _OF_MESSAGES).rows(every, problems)
        else:
            yield from _join(every, problems)


def from_oasst(fields: Fields) -> Row:
    """Takes trees, `{prompt: {text, role, replies: […]}}`, or flat messages, `{message_id, parent_id, text, role}`.

    Roles are prompter and assistant. From the first message on, the reply with the lowest `rank` is followed, the first
    of several, up to the last assistant's. Messages that are `deleted`, or whose `review_result` is false, are left
    aside with what answers them. `Row.left_out` counts all messages of the tree that are not in the conversation. Flat
    messages are gathered from the whole file, in any order. A tree without an assistant's reply is refused, and so are
    parents that the file does not have.
    """
    field, prompt = fields.name("prompt"), fields.get("prompt")
    if not isinstance(prompt, dict):
        fields.report(field, f"must be a message with `replies`, not {json_type(prompt)}")
        return fields.row()
    root = _nest(fields, prompt, field)
    members = list(_members(root))
    return fields.row() if fields.found else _conversation(root, members) or fields.row()


@dataclass(eq=False)
class _Node:
    """A message and its replies in the order of the file."""

    fields: Fields
    value: JsonObject
    prefix: str
    """What stands before the names of its fields in a path."""
    role: Role | None
    rank: float
    aside: bool
    """Deleted, or turned down by the people who reviewed it."""
    replies: list["_Node"] = field(default_factory=list, repr=False)


def _join(rows: Iterable[Fields], problems: Problems) -> Iterator[Row]:
    """Makes trees of messages that stand in any order; a tree with a mistake anywhere counts as one bad row."""
    nodes = _gather(rows, problems)
    for root in _link(nodes):
        members = list(_members(root))
        row = None if _found(members) else _conversation(root, members)
        if row and not _found(members):
            yield row
        else:
            problems.add_row(problem for member in members for problem in member.fields.found)


def _gather(rows: Iterable[Fields], problems: Problems) -> dict[str, _Node]:
    """Messages by their id."""
    nodes: dict[str, _Node] = {}
    for fields in rows:
        fields.require(_FLAT)
        id = "" if fields.found else fields.text("message_id")
        if id in nodes:
            fields.report(fields.name("message_id"), f"the same id as in line {nodes[id].fields.line}")
        if fields.found:
            problems.add_row(fields.found)
        else:
            nodes[id] = _node(fields, fields.value, "")
    missing = _missing_mapped([node.fields for node in nodes.values()])
    for problem in missing:
        problems.add_fatal(problem)
    return {} if missing else nodes


def _missing_mapped(rows: Sequence[Fields]) -> list[Problem]:
    """Some files leave out what is null, so a column that the spec maps need not be in every row, but in one."""
    if not rows:
        return []
    mapped = (column for column in _OPTIONAL if column in rows[0].columns)
    before = len(rows[0].found)
    rows[0].require(column for column in mapped if not any(row.has(column) for row in rows))
    return rows[0].found[before:]


def _node(fields: Fields, value: JsonObject, prefix: str) -> _Node:
    deleted = _flag(fields, value, "deleted", prefix) is True
    aside = deleted or _flag(fields, value, "review_result", prefix) is False
    return _Node(fields, value, prefix, _role(fields, value, prefix), _rank(fields, value, prefix), aside)


def _flag(fields: Fields, value: JsonObject, key: str, prefix: str) -> bool | None:
    flag = value.get(key)
    if flag is None or isinstance(flag, bool):
        return flag
    fields.report(f"{prefix}{key}", f"must be true, false or null, not {json_type(flag)}")
    return None


def _role(fields: Fields, value: JsonObject, prefix: str) -> Role | None:
    name = fields.name("role")
    role = value.get(name)
    if isinstance(role, str) and role in _ROLES:
        return _ROLES[role]
    hint = f"use {' or '.join(_ROLES)}"
    if name not in value:
        fields.report(f"{prefix}{name}", "missing", hint)
    elif isinstance(role, str):
        fields.report(f"{prefix}{name}", f"unknown role{known_word(role)}", hint)
    else:
        fields.report(f"{prefix}{name}", f"must be a string, not {json_type(role)}", hint)
    return None


def _rank(fields: Fields, value: JsonObject, prefix: str) -> float:
    """Place among the replies to one message, 0 for the best; those without come last."""
    name = fields.name("rank")
    rank = value.get(name)
    if isinstance(rank, int | float) and not isinstance(rank, bool):
        return math.inf if math.isnan(rank) else rank
    if rank is not None:
        fields.report(f"{prefix}{name}", f"must be a number, not {json_type(rank)}")
    return math.inf


def _nest(fields: Fields, prompt: JsonObject, name: str) -> _Node:
    """A whole tree; not recursive, since a file may nest deeper than Python calls."""
    root = _node(fields, prompt, f"{name}.")
    waiting = [root]
    while waiting:
        node = waiting.pop()
        replies = node.value.get("replies")
        place = f"{node.prefix}replies"
        if replies is not None and not isinstance(replies, list):
            fields.report(place, f"must be a list of messages, not {json_type(replies)}")
            continue
        for position, reply in enumerate(replies or ()):
            if isinstance(reply, dict):
                node.replies.append(_node(fields, reply, f"{place}.{position}."))
            else:
                fields.report(f"{place}.{position}", f"must be a message, not {json_type(reply)}")
        waiting += node.replies
    return root


def _link(nodes: dict[str, _Node]) -> list[_Node]:
    """Gives each message its replies; the first messages of trees, and of those whose first message is not there."""
    roots = []
    parents: dict[_Node, _Node] = {}
    for node in nodes.values():
        name = node.fields.name("parent_id")
        parent = node.fields.get("parent_id")
        if parent is not None and not isinstance(parent, str):
            node.fields.report(name, f"must be a string or null, not {json_type(parent)}")
        elif parent and parent not in nodes:
            node.fields.report(name, "no message of this file has this id", "keep a tree's messages in one file")
        elif parent:
            nodes[parent].replies.append(node)
            parents[node] = nodes[parent]
            continue
        roots.append(node)
    return roots + _circles(nodes.values(), roots, parents)


def _circles(nodes: Iterable[_Node], roots: Iterable[_Node], parents: dict[_Node, _Node]) -> list[_Node]:
    """One message of each circle, reported, and cut off from the message that it answers."""
    reached = {member for root in roots for member in _members(root)}
    heads = []
    for node in nodes:
        if node in reached:
            continue
        inside, passed = node, set()
        while inside not in passed:
            passed.add(inside)
            inside = parents[inside]
        circle = [inside]
        while (before := parents[circle[-1]]) is not inside:
            circle.append(before)
        head = min(circle, key=lambda member: member.fields.line)
        parents[head].replies.remove(head)
        head.fields.report(head.fields.name("parent_id"), "the message answers one of its own answers")
        heads.append(head)
        reached.update(_members(head))
    return heads


def _members(root: _Node) -> Iterator[_Node]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.replies


def _found(members: Iterable[_Node]) -> bool:
    return any(member.fields.found for member in members)


def _conversation(root: _Node, members: list[_Node]) -> Row | None:
    place = root.prefix.removesuffix(".")
    if root.aside:
        root.fields.report(place, "the tree's first message is deleted or was turned down in review")
        return None
    if root.role != "user":
        root.fields.report(f"{root.prefix}{root.fields.name('role')}", "a tree begins with the prompter")
        return None
    path = [root]
    while replies := [reply for reply in path[-1].replies if not reply.aside]:
        path.append(min(replies, key=lambda reply: reply.rank))
    while path and path[-1].role != "assistant":
        path.pop()
    if not path:
        root.fields.report(place, "no assistant's reply in the tree", _ANSWER)
        return None
    messages = [Message(node.role or "user", _text(node)) for node in path]
    return root.fields.row(messages, left_out=len(members) - len(path))


def _text(node: _Node) -> str:
    name = node.fields.name("text")
    if name not in node.value:
        node.fields.report(f"{node.prefix}{name}", "missing")
        return ""
    return checked_text(node.value[name], f"{node.prefix}{name}", node.fields.report)
