"""Broken rows of all formats: each mistake is one line, `file:line: field: reason; hint`, and quotes no text."""

import json
from pathlib import Path
from typing import Any

import pytest

from sftjob.data import read_messages
from sftjob.errors import DataError

SECRET = "xyzzy"
_ROLES = "use system, user, assistant or tool"
_SPEAKERS = "use human, user, gpt, assistant, chatgpt, bard, bing, function_call, system, observation or tool"
_NAME_THEM = "name them with `columns`, for instance `{prompt: question, completion: answer}`"
_LEARN = "a row needs an answer to learn from"
_PAIR = "write such characters as UTF-8 or as a whole \\u pair"
_KEYS = "it may have `role`, `content`, `tool_calls`, `tool_call_id`, `name`, `reasoning_content`, `train` and `weight`"
_CALL_KEYS = "keep `id`, `name` and `arguments` alone"
_TEXT_PARTS = "only parts of type `text` can be trained"


def _turn(role: object, content: object = SECRET, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


USER, ASSISTANT = _turn("user"), _turn("assistant")


def _chat(*turns: object, **more: object) -> dict[str, object]:
    return {"messages": list(turns), **more}


def _answer(content: object = SECRET, **more: object) -> dict[str, object]:
    return _chat(USER, _turn("assistant", content, **more))


def _calling(*calls: object, **more: object) -> dict[str, object]:
    return _answer(tool_calls=list(calls), **more)


def _tools(*tools: object) -> dict[str, object]:
    return _chat(USER, ASSISTANT, tools=list(tools))


def _nested(depth: int) -> object:
    value: object = SECRET
    for _ in range(depth):
        value = [value]
    return value


MESSAGES: dict[str, tuple[object, list[str]]] = {
    "no list": ({"messages": SECRET}, ["f:1: messages: must be a list of messages, not a string"]),
    "a list that is no JSON": (
        {"messages": f"[{{'{SECRET}'"},
        ["f:1: messages: not JSON: Expecting property name enclosed in double quotes (character 3)"],
    ),
    "none": (_chat(), ["f:1: messages: no messages"]),
    "no object": (
        _chat(SECRET, ASSISTANT),
        ["f:1: messages.0: must be an object with `role` and `content`, not a string"],
    ),
    "unknown role": (_chat(USER, _turn("gpt"), ASSISTANT), [f"f:1: messages.1.role: unknown role `gpt`; {_ROLES}"]),
    "a role that is a text": (
        _chat(_turn(f"{SECRET} wrote:"), ASSISTANT),
        [f"f:1: messages.0.role: unknown role; {_ROLES}"],
    ),
    "a role that is a long word": (
        _chat(_turn(SECRET * 5), ASSISTANT),
        [f"f:1: messages.0.role: unknown role; {_ROLES}"],
    ),
    "role of a wrong type": (
        _chat(_turn(1), ASSISTANT),
        [f"f:1: messages.0.role: must be a string, not a number; {_ROLES}"],
    ),
    "no role": (_chat({"content": SECRET}, ASSISTANT), [f"f:1: messages.0.role: missing; {_ROLES}"]),
    "no content": (_chat({"role": "user"}, ASSISTANT), ["f:1: messages.0.content: missing"]),
    "null content": (_answer(None), ["f:1: messages.1.content: must be a string, not null"]),
    "null content and no calls": (
        _answer(None, tool_calls=[]),
        ["f:1: messages.1.content: must be a string, not null"],
    ),
    "an object for content": (_answer({"a": SECRET}), ["f:1: messages.1.content: must be a string, not an object"]),
    "empty content": (_chat(_turn("user", "  "), ASSISTANT), ["f:1: messages.0.content: empty"]),
    "NUL": (_answer(f"{SECRET}\0"), ["f:1: messages.1.content: contains a NUL character"]),
    "half a surrogate pair": (
        _answer(f"{SECRET}\ud83d"),
        [f"f:1: messages.1.content: contains half of a surrogate pair; {_PAIR}"],
    ),
    "unknown key": (_answer(mood=SECRET), [f"f:1: messages.1.mood: not supported in a message; {_KEYS}"]),
    "a key that is a text": (
        _answer(**{"x" * 99: SECRET}),
        [f"f:1: messages.1.{'x' * 30}: not supported in a message; {_KEYS}"],
    ),
    "an old function call": (
        _answer(function_call={"name": SECRET}),
        [f"f:1: messages.1.function_call: not supported in a message; {_KEYS}"],
    ),
    "no assistant turn": (_chat(USER, USER), [f"f:1: messages: no assistant turn; {_LEARN}"]),
    "the user has the last word": (
        _chat(USER, ASSISTANT, USER),
        ["f:1: messages.2.role: the last turn must be the assistant's"],
    ),
    "late system message": (
        _chat(USER, _turn("system"), ASSISTANT),
        ["f:1: messages.1.role: a system message must come first"],
    ),
    "two system messages": (
        _chat(_turn("system"), _turn("system"), ASSISTANT),
        ["f:1: messages.1.role: a system message must come first"],
    ),
    "several at once": (
        _chat(_turn("user", ""), _turn("human"), _turn("assistant", 3)),
        [
            "f:1: messages.0.content: empty",
            f"f:1: messages.1.role: unknown role `human`; {_ROLES}",
            "f:1: messages.2.content: must be a string, not a number",
        ],
    ),
    "an image": (
        _chat(_turn("user", [{"type": "text", "text": SECRET}, {"type": "image_url", "image_url": SECRET}]), ASSISTANT),
        [f"f:1: messages.0.content.1.type: a part of type `image_url`; {_TEXT_PARTS}"],
    ),
    "a part without a type": (
        _answer([{"text": SECRET}]),
        [f"f:1: messages.1.content.0.type: a part of an unknown type; {_TEXT_PARTS}"],
    ),
    "a part whose type is a text": (
        _answer([{"type": f"{SECRET}!", "text": SECRET}]),
        [f"f:1: messages.1.content.0.type: a part of an unknown type; {_TEXT_PARTS}"],
    ),
    "a part that is no object": (
        _answer([SECRET]),
        ["f:1: messages.1.content.0: must be an object with `type` and `text`, not a string"],
    ),
    "a part without text": (
        _answer([{"type": "text", "text": None}]),
        ["f:1: messages.1.content.0.text: must be a string, not null"],
    ),
    "empty parts": (_answer([{"type": "text", "text": ""}]), ["f:1: messages.1.content: empty"]),
    "train of a wrong type": (_answer(train="yes"), ["f:1: messages.1.train: must be true or false, not a string"]),
    "weight of a wrong type": (_answer(weight=True), ["f:1: messages.1.weight: must be 0 or 1"]),
    "half a weight": (_answer(weight=0.5), ["f:1: messages.1.weight: must be 0 or 1"]),
    "weight against train": (
        _answer(weight=0, train=True),
        ["f:1: messages.1.weight: contradicts `train`; keep one of them"],
    ),
    "a trained user": (
        _chat({**USER, "train": True}, ASSISTANT),
        ["f:1: messages.0.train: a turn of the role `user` is not trained"],
    ),
    "a weighted system message": (
        _chat(_turn("system", weight=1), ASSISTANT),
        ["f:1: messages.0.weight: a turn of the role `system` is not trained"],
    ),
    "nothing to learn": (
        _chat(USER, _turn("assistant", train=False), _turn("assistant", weight=0)),
        [f"f:1: messages: no assistant turn may be trained; {_LEARN}"],
    ),
    "thoughts of the user": (
        _chat({**USER, "reasoning_content": SECRET}, ASSISTANT),
        ["f:1: messages.0.reasoning_content: not for the role `user`"],
    ),
    "thoughts of a wrong type": (
        _answer(reasoning_content=[SECRET]),
        ["f:1: messages.1.reasoning_content: must be a string, not a list"],
    ),
    "a name of a wrong type": (_answer(name=7), ["f:1: messages.1.name: must be a string, not a number"]),
    "an id where nothing is answered": (
        _answer(tool_call_id=SECRET),
        ["f:1: messages.1.tool_call_id: not for the role `assistant`"],
    ),
}

CALLS: dict[str, tuple[object, list[str]]] = {
    "no list": (_answer(tool_calls=SECRET), ["f:1: messages.1.tool_calls: must be a list of calls, not a string"]),
    "no object": (
        _calling(SECRET),
        ["f:1: messages.1.tool_calls.0: must be an object with `name` and `arguments`, not a string"],
    ),
    "function is no object": (
        _calling({"function": SECRET}),
        ["f:1: messages.1.tool_calls.0.function: must be an object with `name` and `arguments`, not a string"],
    ),
    "no name": (
        _calling({"function": {"arguments": {}}}),
        ["f:1: messages.1.tool_calls.0.function.name: missing"],
    ),
    "empty name": (_calling({"name": " ", "arguments": {}}), ["f:1: messages.1.tool_calls.0.name: empty"]),
    "no arguments": (
        _calling({"name": SECRET}),
        ["f:1: messages.1.tool_calls.0.arguments: missing; write {} for none"],
    ),
    "arguments that are a list": (
        _calling({"name": SECRET, "arguments": [SECRET]}),
        ["f:1: messages.1.tool_calls.0.arguments: must be an object or a JSON string of one, not a list"],
    ),
    "arguments that are no JSON": (
        _calling({"name": SECRET, "arguments": f"{{{SECRET}}}"}),
        [
            "f:1: messages.1.tool_calls.0.arguments: not JSON: Expecting property name enclosed in double quotes"
            " (character 2)"
        ],
    ),
    "arguments that are cut off": (
        _calling({"function": {"name": SECRET, "arguments": '{"a": "'}}),
        ["f:1: messages.1.tool_calls.0.function.arguments: not JSON: Unterminated string starting at (character 7)"],
    ),
    "arguments of JSON null": (
        _calling({"name": SECRET, "arguments": "null"}),
        ["f:1: messages.1.tool_calls.0.arguments: must be an object or a JSON string of one, not null"],
    ),
    "an argument twice": (
        _calling({"name": SECRET, "arguments": '{"a": 1, "a": 2}'}),
        ["f:1: messages.1.tool_calls.0.arguments: the same key twice in one object"],
    ),
    "an argument of NaN": (
        _calling({"name": SECRET, "arguments": '{"a": NaN}'}),
        ["f:1: messages.1.tool_calls.0.arguments: not JSON: NaN"],
    ),
    "an infinite argument": (
        _calling({"name": SECRET, "arguments": '{"a": 1e999}'}),
        ["f:1: messages.1.tool_calls.0.arguments: contains a number that is not finite"],
    ),
    "NUL in an argument": (
        _calling({"name": SECRET, "arguments": {"a": [{f"{SECRET}\0": 1}]}}),
        ["f:1: messages.1.tool_calls.0.arguments: contains a NUL character"],
    ),
    "half a pair in an argument": (
        _calling({"name": SECRET, "arguments": {"a": "\udc00"}}),
        ["f:1: messages.1.tool_calls.0.arguments: contains half of a surrogate pair"],
    ),
    "deep arguments": (
        _calling({"name": SECRET, "arguments": {"a": _nested(200)}}),
        ["f:1: messages.1.tool_calls.0.arguments: nested more than 100 levels deep"],
    ),
    "arguments too deep to read": (
        _calling({"name": SECRET, "arguments": '{"a": ' + "[" * 100_000}),
        ["f:1: messages.1.tool_calls.0.arguments: nested too deeply"],
    ),
    "another type": (
        _calling({"type": SECRET, "name": SECRET, "arguments": {}}),
        ["f:1: messages.1.tool_calls.0.type: must be `function`"],
    ),
    "an id of a wrong type": (
        _calling({"id": 3, "name": SECRET, "arguments": {}}),
        ["f:1: messages.1.tool_calls.0.id: must be a string, not a number"],
    ),
    "another key": (
        _calling({"index": 0, "function": {"name": SECRET, "arguments": {}, "output": SECRET}}),
        [
            f"f:1: messages.1.tool_calls.0.index: not supported in a tool call; {_CALL_KEYS}",
            f"f:1: messages.1.tool_calls.0.function.output: not supported in a tool call; {_CALL_KEYS}",
        ],
    ),
    "by the user": (
        _chat({**USER, "tool_calls": [{"name": SECRET, "arguments": {}}]}, ASSISTANT),
        ["f:1: messages.0.tool_calls: only the assistant calls tools"],
    ),
    "an answer without a call": (
        _chat(USER, _turn("tool"), ASSISTANT),
        ["f:1: messages.1.role: a tool answers where none was called; it follows a turn with `tool_calls`"],
    ),
    "an answer to nothing": (
        _chat(_turn("tool"), ASSISTANT),
        ["f:1: messages.0.role: a tool answers where none was called; it follows a turn with `tool_calls`"],
    ),
    "an answer of null": (
        _chat(USER, _turn("assistant", tool_calls=[{"name": "f", "arguments": {}}]), _turn("tool", None), ASSISTANT),
        ["f:1: messages.2.content: must be a string, not null"],
    ),
    "a tool has the last word": (
        _chat(USER, _turn("assistant", tool_calls=[{"name": "f", "arguments": {}}]), _turn("tool")),
        ["f:1: messages.2.role: the last turn must be the assistant's"],
    ),
    "tools that are no list": (
        _chat(USER, ASSISTANT, tools={"name": SECRET}),
        ["f:1: tools: must be a list of tools or a JSON string of one, not an object"],
    ),
    "tools that are no JSON": (
        _chat(USER, ASSISTANT, tools=SECRET),
        ["f:1: tools: not JSON: Expecting value (character 1)"],
    ),
    "tools that are JSON of something else": (
        _chat(USER, ASSISTANT, tools='"xyzzy"'),
        ["f:1: tools: must be a list of tools or a JSON string of one, not a string"],
    ),
    "a tool that is a name": (_tools(SECRET), ["f:1: tools.0: must be an object, not a string"]),
    "a tool without a name": (_tools({"name": "f"}, {"description": SECRET}), ["f:1: tools.1.name: missing"]),
    "a tool of another type": (
        _tools({"type": "web_search", "function": {"name": SECRET}}),
        ["f:1: tools.0.type: must be `function`"],
    ),
    "a tool whose function is a name": (
        _tools({"type": "function", "function": SECRET}),
        ["f:1: tools.0.function: must be an object, not a string"],
    ),
    "parameters that are a list": (
        _tools({"function": {"name": SECRET, "parameters": [SECRET]}}),
        ["f:1: tools.0.function.parameters: must be a JSON schema, not a list"],
    ),
    "NUL in a tool": (_tools({"name": "f", "description": "\0"}), ["f:1: tools: contains a NUL character"]),
    "deep tools": (
        _tools({"name": "f", "parameters": {"a": _nested(200)}}),
        ["f:1: tools: nested more than 100 levels deep"],
    ),
}


def _talk(*turns: tuple[object, object], **more: object) -> dict[str, object]:
    return {"conversations": [{"from": speaker, "value": value} for speaker, value in turns], **more}


SHAREGPT: dict[str, tuple[object, list[str]]] = {
    "no list": ({"conversations": {}}, ["f:1: conversations: must be a list of messages, not an object"]),
    "none": (_talk(), ["f:1: conversations: no messages"]),
    "no object": (
        {"conversations": [[SECRET]]},
        ["f:1: conversations.0: must be an object with `from` and `value`, not a list"],
    ),
    "unknown speaker": (
        _talk(("human", SECRET), ("narrator", SECRET), ("gpt", SECRET)),
        [f"f:1: conversations.1.from: unknown role `narrator`; {_SPEAKERS}"],
    ),
    "no speaker": (
        {"conversations": [{"value": SECRET}]},
        [f"f:1: conversations.0.from: missing; {_SPEAKERS}"],
    ),
    "empty value": (_talk(("human", ""), ("gpt", SECRET)), ["f:1: conversations.0.value: empty"]),
    "no value": (
        {"conversations": [{"from": "human"}, {"from": "gpt", "value": SECRET}]},
        ["f:1: conversations.0.value: missing"],
    ),
    "only people": (_talk(("human", SECRET)), [f"f:1: conversations: no assistant turn; {_LEARN}"]),
    "the human has the last word": (
        _talk(("gpt", SECRET), ("human", SECRET)),
        ["f:1: conversations.1.from: the last turn must be the assistant's"],
    ),
    "system twice": (
        _talk(("system", SECRET), ("gpt", SECRET), system=SECRET),
        ["f:1: system: the conversation has a system message of its own; keep one of them"],
    ),
    "system of a wrong type": (_talk(("gpt", SECRET), system=[SECRET]), ["f:1: system: must be a string, not a list"]),
    "a call that is no JSON": (
        _talk(("human", SECRET), ("function_call", SECRET), ("gpt", SECRET)),
        ["f:1: conversations.1.value: not JSON: Expecting value (character 1); write the call as {name, arguments}"],
    ),
    "a call of a number": (
        _talk(("human", SECRET), ("function_call", "17"), ("gpt", SECRET)),
        ["f:1: conversations.1.value: must be a list of calls, not a number"],
    ),
    "no call": (
        _talk(("human", SECRET), ("function_call", "[]"), ("gpt", SECRET)),
        ["f:1: conversations.1.value: no call"],
    ),
    "the second call has no name": (
        _talk(("human", SECRET), ("function_call", '[{"name": "f", "arguments": {}}, {"arguments": {}}]')),
        ["f:1: conversations.1.value.1.name: missing"],
    ),
    "a call without arguments": (
        _talk(("human", SECRET), ("function_call", '{"name": "f"}'), ("observation", SECRET), ("gpt", SECRET)),
        ["f:1: conversations.1.value.arguments: missing; write {} for none"],
    ),
    "two places for calls": (
        {
            "conversations": [
                {
                    "from": "function_call",
                    "value": '{"name": "f", "arguments": {}}',
                    "tool_calls": [{"name": "f", "arguments": {}}],
                }
            ]
        },
        ["f:1: conversations.0.tool_calls: a second place for calls; keep those in the text"],
    ),
    "an observation of nothing": (
        _talk(("human", SECRET), ("observation", SECRET), ("gpt", SECRET)),
        ["f:1: conversations.1.from: a tool answers where none was called; it follows a turn with `tool_calls`"],
    ),
    "tools that are no JSON": (
        _talk(("gpt", SECRET), tools="[xyzzy]"),
        ["f:1: tools: not JSON: Expecting value (character 2)"],
    ),
}


def _alpaca(**more: object) -> dict[str, object]:
    return {"instruction": SECRET, "output": SECRET, **more}


def _asked(prompt: object = SECRET, completion: object = SECRET, **more: object) -> dict[str, object]:
    return {"prompt": prompt, "completion": completion, **more}


COLUMNS: dict[str, tuple[object, list[str]]] = {
    "unknown columns": (
        {"question": SECRET, "answer": SECRET},
        [f"f:1: no known format has the columns `question`, `answer`; {_NAME_THEM}"],
    ),
    "columns that are texts": (
        {"y" * 99: SECRET},
        [f"f:1: no known format has the columns `{'y' * 30}`; {_NAME_THEM}"],
    ),
    "no columns": ({}, [f"f:1: no known format has the columns (none); {_NAME_THEM}"]),
    "alpaca: an empty output": (_alpaca(output=" \n"), ["f:1: output: empty"]),
    "alpaca: null": (_alpaca(instruction=None), ["f:1: instruction: must be a string, not null"]),
    "alpaca: input of a wrong type": (_alpaca(input=["a"]), ["f:1: input: must be a string, not a list"]),
    "alpaca: NUL in the input": (_alpaca(input="\0"), ["f:1: input: contains a NUL character"]),
    "alpaca: system of a wrong type": (_alpaca(system=True), ["f:1: system: must be a string, not a boolean"]),
    "alpaca: history that is text": (
        _alpaca(history=SECRET),
        ["f:1: history: must be a list of [question, answer] pairs, not a string"],
    ),
    "alpaca: history without an answer": (
        _alpaca(history=[[SECRET, SECRET], [SECRET]]),
        ["f:1: history.1: must be a [question, answer] pair, not a list of 1"],
    ),
    "alpaca: history of objects": (
        _alpaca(history=[{"q": SECRET}]),
        ["f:1: history.0: must be a [question, answer] pair, not an object"],
    ),
    "alpaca: an empty answer in the history": (_alpaca(history=[[SECRET, ""]]), ["f:1: history.0.1: empty"]),
    "prompt: wrong types": (
        _asked([SECRET], {"a": SECRET}),
        ["f:1: prompt: must be a string, not a list", "f:1: completion: must be a string, not an object"],
    ),
    "prompt: a list and a text": (_asked([USER]), ["f:1: prompt: must be a string, not a list"]),
    "prompt: empty completion": (_asked(completion=" \n"), ["f:1: completion: empty"]),
    "prompt: system of a wrong type": (_asked(system=3), ["f:1: system: must be a string, not a number"]),
    "prompt: NUL": (_asked(f"{SECRET}\0"), ["f:1: prompt: contains a NUL character"]),
    "prompt: half a pair": (
        _asked(f"{SECRET}\ud83d"),
        [f"f:1: prompt: contains half of a surrogate pair; {_PAIR}"],
    ),
    "prompt: tools that are no list": (
        _asked(tools=1),
        ["f:1: tools: must be a list of tools or a JSON string of one, not a number"],
    ),
    "prompt: empty lists": (_asked([], []), ["f:1: prompt: no messages", "f:1: completion: no messages"]),
    "prompt: lists of text": (
        _asked([SECRET], [SECRET]),
        [
            "f:1: prompt.0: must be an object with `role` and `content`, not a string",
            "f:1: completion.0: must be an object with `role` and `content`, not a string",
        ],
    ),
    "prompt: the completion is the user's": (
        _asked([USER, ASSISTANT], [USER]),
        [f"f:1: completion: no assistant turn; {_LEARN}"],
    ),
    "prompt: the completion ends with the user": (
        _asked([USER], [ASSISTANT, USER]),
        ["f:1: completion.1.role: the last turn must be the assistant's"],
    ),
    "prompt: a trained turn": (
        _asked([USER, _turn("assistant", train=True), USER], [ASSISTANT]),
        ["f:1: prompt.1.role: marked as trained, but stands in a prompt; move it to the completion"],
    ),
    "prompt: an untrained completion": (
        _asked([USER], [_turn("assistant", train=False)]),
        [f"f:1: completion: no assistant turn may be trained; {_LEARN}"],
    ),
    "prompt: a late system message": (
        _asked([USER], [_turn("system"), ASSISTANT]),
        ["f:1: completion.0.role: a system message must come first"],
    ),
    "prompt: two system messages": (
        _asked([_turn("system"), USER], [ASSISTANT], system=SECRET),
        ["f:1: system: the conversation has a system message of its own; keep one of them"],
    ),
    "guanaco: an empty turn": (
        {"text": "### Human:  ### Assistant: xyzzy"},
        ["f:1: text.0: an empty turn after `### Human:`"],
    ),
    "guanaco: only a question": (
        {"text": "### Human: xyzzy"},
        [f"f:1: text: no assistant turn; {_LEARN}"],
    ),
    "guanaco: a late system turn": (
        {"text": "### Human: xyzzy### System: xyzzy### Assistant: xyzzy"},
        ["f:1: text.1: a system message must come first"],
    ),
    "text: empty": ({"text": " "}, ["f:1: text: empty"]),
    "text: a list": ({"text": [SECRET]}, ["f:1: text: must be a string, not a list"]),
    "text: NUL": ({"text": "xyzzy\0"}, ["f:1: text: contains a NUL character"]),
}


def _tree(role: object = "prompter", **more: Any) -> dict[str, object]:
    return {"prompt": {"text": SECRET, "role": role, "replies": [_reply()], **more}}


def _reply(**more: object) -> dict[str, object]:
    return {"text": SECRET, "role": "assistant", **more}


TREES: dict[str, tuple[object, list[str]]] = {
    "replies that are no list": (
        _tree(replies=SECRET),
        ["f:1: prompt.replies: must be a list of messages, not a string"],
    ),
    "a reply that is a text": (
        _tree(replies=[_reply(), SECRET]),
        ["f:1: prompt.replies.1: must be a message, not a string"],
    ),
    "unknown role": (_tree("user"), ["f:1: prompt.role: unknown role `user`; use prompter or assistant"]),
    "no role": (
        _tree(replies=[{"text": SECRET}]),
        ["f:1: prompt.replies.0.role: missing; use prompter or assistant"],
    ),
    "role of a wrong type": (
        _tree(replies=[_reply(role=[])]),
        ["f:1: prompt.replies.0.role: must be a string, not a list; use prompter or assistant"],
    ),
    "no text": (_tree(replies=[{"role": "assistant"}]), ["f:1: prompt.replies.0.text: missing"]),
    "empty text": (_tree(text=""), ["f:1: prompt.text: empty"]),
    "a rank in words": (
        _tree(replies=[_reply(rank="first")]),
        ["f:1: prompt.replies.0.rank: must be a number, not a string"],
    ),
    "a flag in words": (
        _tree(replies=[_reply(deleted="no", review_result=1)]),
        [
            "f:1: prompt.replies.0.deleted: must be true, false or null, not a string",
            "f:1: prompt.replies.0.review_result: must be true, false or null, not a number",
        ],
    ),
    "no reply": (_tree(replies=[]), [f"f:1: prompt: no assistant's reply in the tree; {_LEARN}"]),
    "only deleted replies": (
        _tree(replies=[_reply(deleted=True), _reply(review_result=False)]),
        [f"f:1: prompt: no assistant's reply in the tree; {_LEARN}"],
    ),
    "a deleted tree": (
        _tree(deleted=True),
        ["f:1: prompt: the tree's first message is deleted or was turned down in review"],
    ),
    "the assistant begins": (_tree("assistant"), ["f:1: prompt.role: a tree begins with the prompter"]),
}


def _flat(id: object, parent: object = None, **more: object) -> dict[str, object]:
    role = "prompter" if parent is None else "assistant"
    return {"message_id": id, "parent_id": parent, "text": SECRET, "role": role, **more}


ROOT, REPLY = _flat("r"), _flat("a", "r")
_CIRCLE = "the message answers one of its own answers"
_LOST = "no message of this file has this id; keep a tree's messages in one file"

SEVERAL: dict[str, tuple[list[object], list[str]]] = {
    "column gone": (
        [_asked(), {"promt": "a", "completion": "b"}],
        ["f:2: prompt: no such column; did you mean `promt`?"],
    ),
    "column gone, none near": (
        [_asked(), {"completion": "b"}],
        ["f:2: prompt: no such column; the row has `completion`"],
    ),
    "good ones between": (
        [_chat(USER), _chat(USER, ASSISTANT), _answer("")],
        [f"f:1: messages: no assistant turn; {_LEARN}", "f:3: messages.1.content: empty"],
    ),
    "another format": (
        [_alpaca(), _chat(USER, ASSISTANT)],
        [
            "f:2: instruction: no such column; the row has `messages`",
            "f:2: output: no such column; the row has `messages`",
        ],
    ),
    "guanaco: text first": (
        [{"text": "### Human: a### Assistant: b"}, {"text": "xyzzy ### Human: a ### Assistant: b"}, {"text": SECRET}],
        [
            "f:2: text: text before the first `### Human:`; give it a turn of its own",
            "f:3: text: no turn; turns begin with `### Human:` and `### Assistant:`",
        ],
    ),
    "guanaco: wrong types": (
        [{"text": "### Human: a### Assistant: b"}, {"text": None}, {"text": ""}],
        ["f:2: text: must be a string, not null", "f:3: text: empty"],
    ),
    "tree: not a tree": (
        [_tree(), {"prompt": SECRET}, {"prompts": {}}],
        [
            "f:2: prompt: must be a message with `replies`, not a string",
            "f:3: prompt: no such column; did you mean `prompts`?",
        ],
    ),
    "flat: no id": (
        [ROOT, REPLY, {"text": SECRET, "role": "prompter"}, _flat(None), _flat("")],
        [
            "f:3: message_id: no such column; the row has `text`, `role`",
            "f:4: message_id: must be a string, not null",
            "f:5: message_id: empty",
        ],
    ),
    "flat: the same id twice": ([ROOT, REPLY, REPLY], ["f:3: message_id: the same id as in line 2"]),
    "flat: no parent": ([ROOT, _flat("b", SECRET), REPLY], [f"f:2: parent_id: {_LOST}"]),
    "flat: parent of a wrong type": (
        [ROOT, REPLY, _flat("b", 7)],
        ["f:3: parent_id: must be a string or null, not a number"],
    ),
    "flat: its own parent": ([ROOT, REPLY, _flat("b", "b")], [f"f:3: parent_id: {_CIRCLE}"]),
    "flat: a circle with answers": (
        [_flat("e", "d"), ROOT, _flat("b", "d"), _flat("c", "b"), _flat("d", "c"), REPLY],
        [f"f:3: parent_id: {_CIRCLE}"],
    ),
    "flat: two circles": (
        [ROOT, _flat("b", "c"), _flat("c", "b"), _flat("d", "d")],
        [
            f"f:1: no assistant's reply in the tree; {_LEARN}",
            f"f:2: parent_id: {_CIRCLE}",
            f"f:4: parent_id: {_CIRCLE}",
        ],
    ),
    "flat: unknown role": (
        [ROOT, {**REPLY, "role": "gpt"}],
        ["f:2: role: unknown role `gpt`; use prompter or assistant"],
    ),
    "flat: empty text": ([REPLY, {**ROOT, "text": "\n"}], ["f:2: text: empty"]),
    "flat: a deleted tree": (
        [REPLY, {**ROOT, "review_result": False}],
        ["f:2: the tree's first message is deleted or was turned down in review"],
    ),
    "flat: rank of a wrong type": ([ROOT, {**REPLY, "rank": True}], ["f:2: rank: must be a number, not a boolean"]),
}


def _corpus() -> list[object]:
    single = {"messages": MESSAGES, "calls": CALLS, "sharegpt": SHAREGPT, "columns": COLUMNS, "trees": TREES}
    cases = [
        pytest.param([row], lines, id=f"{name}: {id}")
        for name, group in single.items()
        for id, (row, lines) in group.items()
    ]
    return cases + [pytest.param(rows, lines, id=id) for id, (rows, lines) in SEVERAL.items()]


@pytest.mark.parametrize(("rows", "lines"), _corpus())
def test_every_mistake_is_named(tmp_path: Path, rows: list[object], lines: list[str]) -> None:
    path = tmp_path / "rows"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as caught:
        read_messages(path, name="f")
    assert str(caught.value).splitlines() == lines
    assert SECRET not in str(caught.value)
    assert caught.value.exit_code == 65


def test_the_corpus_is_large() -> None:
    assert len(_corpus()) >= 120


def test_rows_of_an_array_are_named_by_their_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    rows = [_chat(USER), _chat(USER, ASSISTANT), _answer("")]
    path.write_text("[" + ",\n".join(map(json.dumps, rows)) + "]")
    with pytest.raises(DataError) as caught:
        read_messages(path, name="f")
    assert str(caught.value).splitlines() == [
        f"f:1: [0].messages: no assistant turn; {_LEARN}",
        "f:3: [2].messages.1.content: empty",
    ]


@pytest.mark.parametrize(
    ("row", "columns", "line"),
    [
        (
            {"question": "a", "answer": 1, "rule": "b"},
            {"prompt": "question", "completion": "answer", "system": "rules"},
            "f:1: rules: no such column; did you mean `rule`?",
        ),
        (
            {"questoin": "a", "answer": "b"},
            {"prompt": "question", "completion": "answer"},
            "f:1: question: no such column; did you mean `questoin`?",
        ),
        (
            {"question": "a", "answer": ""},
            {"prompt": "question", "completion": "answer"},
            "f:1: answer: empty",
        ),
        (
            {"talk": [{"who": "gpt", "value": "a"}]},
            {"conversations": "talk", "role": "whom"},
            f"f:1: talk.0.whom: missing; {_SPEAKERS}\n"
            "f:1: talk.0.who: not supported in a message; it may have `whom`, `value`, `tool_calls`, `tool_call_id`,"
            " `name`, `reasoning_content`, `train` and `weight`",
        ),
        ({"body": ""}, {"text": "body"}, "f:1: body: empty"),
        ({"story": "a"}, {"text": "body"}, "f:1: body: no such column; the row has `story`"),
    ],
)
def test_mapped_columns_are_named_as_in_the_file(
    tmp_path: Path, row: object, columns: dict[str, str], line: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(DataError) as caught:
        read_messages(path, columns=columns, name="f")
    assert sorted(str(caught.value).splitlines()) == sorted(line.splitlines())
