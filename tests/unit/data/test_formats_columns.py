"""`alpaca`, `prompt_completion`, `guanaco` and `text`: columns of text → conversations."""

import json
from pathlib import Path

import pytest

from sftjob.data import Message, Row, read_messages
from sftjob.data.messages import ToolCall


def read_one(path: Path, row: object, **options: object) -> Row:
    file = path / "f.jsonl"
    file.write_text(json.dumps(row))
    [found] = read_messages(file, name="f", **options)  # type: ignore[arg-type]
    return found


def turns(*contents: str, system: str = "") -> tuple[Message, ...]:
    """Of user and assistant in turn."""
    first = (Message("system", system),) if system else ()
    roles = ("user", "assistant")
    return (*first, *(Message(roles[at % 2], content) for at, content in enumerate(contents)))  # type: ignore[arg-type]


class TestAlpaca:
    @pytest.mark.parametrize(
        ("more", "messages"),
        [
            ({}, turns("Add.", "4")),
            ({"input": None, "system": None, "history": None}, turns("Add.", "4")),
            ({"input": " ", "system": "", "history": []}, turns("Add.", "4")),
            ({"input": "2+2"}, turns("Add.\n\n2+2", "4")),
            ({"system": "Be brief."}, turns("Add.", "4", system="Be brief.")),
            (
                {"system": "s", "input": "c", "history": [["a", "b"], ["d", "e"]]},
                turns("a", "b", "d", "e", "Add.\n\nc", "4", system="s"),
            ),
        ],
    )
    def test_columns(self, tmp_path: Path, more: dict[str, object], messages: tuple[Message, ...]) -> None:
        row = read_one(tmp_path, {"instruction": "Add.", "output": "4", **more})
        assert row.messages == messages

    def test_renamed(self, tmp_path: Path) -> None:
        columns = {"instruction": "task", "input": "given", "output": "result", "history": "before", "system": "rules"}
        row = {"task": "Add.", "given": "2+2", "result": "4", "before": [["a", "b"]], "rules": "s"}
        assert read_one(tmp_path, row, columns=columns).messages == turns("a", "b", "Add.\n\n2+2", "4", system="s")


class TestPromptCompletion:
    PROMPT = (
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    )

    def test_only_the_completion_of_lists_trains(self, tmp_path: Path) -> None:
        completion = [
            {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {}}]},
            {"role": "tool", "content": "d"},
            {"role": "assistant", "content": "e", "train": True},
        ]
        tools = [{"name": "f"}]
        row = read_one(tmp_path, {"prompt": self.PROMPT, "completion": completion, "tools": tools})
        assert row.messages == (
            Message("system", "s"),
            Message("user", "a"),
            Message("assistant", "b", train=False),
            Message("user", "c"),
            Message("assistant", "", (ToolCall("f", {}),)),
            Message("tool", "d"),
            Message("assistant", "e", train=True),
        )
        assert row.tools == ({"type": "function", "function": {"name": "f"}},)

    def test_system_column_and_lists(self, tmp_path: Path) -> None:
        completion = [{"role": "assistant", "content": "b"}]
        row = read_one(tmp_path, {"prompt": self.PROMPT[1:2], "completion": completion, "system": "s"})
        assert row.messages == turns("a", "b", system="s")

    def test_text_is_kept_as_it_is(self, tmp_path: Path) -> None:
        row = read_one(tmp_path, {"prompt": " a\n", "completion": "\tb ", "tools": '[{"name": "f"}]'})
        assert row.messages == turns(" a\n", "\tb ")
        assert len(row.tools) == 1


class TestGuanaco:
    @pytest.mark.parametrize(
        ("text", "messages", "left_out"),
        [
            ("### Human: a### Assistant: b", turns("a", "b"), 0),
            ("\n### Human: a\n### Assistant:b\n", turns("a", "b"), 0),
            ("### System: s\n### Human: a ###\n### Assistant: #b\n c", turns("a ###", "#b\n c", system="s"), 0),
            ("### Human: a\n#### Human: x### Assistant: b", turns("a\n#### Human: x", "b"), 0),
            ("### Human: a### Assistant: b### Human: c", turns("a", "b"), 1),
            ("### Human: a### Assistant: b### Human: c### Human: d", turns("a", "b"), 2),
            ("### Human: a### Assistant: b### Human: c### Assistant: d", turns("a", "b", "c", "d"), 0),
        ],
    )
    def test_turns(self, tmp_path: Path, text: str, messages: tuple[Message, ...], left_out: int) -> None:
        row = read_one(tmp_path, {"text": text}, format="guanaco")
        assert (row.messages, row.left_out) == (messages, left_out)
        assert read_one(tmp_path, {"text": text}) == row


def test_plain_text_is_kept_as_it_is(tmp_path: Path) -> None:
    text = " It was a dark night.\n### Human: no\n"
    assert read_one(tmp_path, {"text": text, "title": "t"}) == Row((), "f", 1, text=text)
    assert read_one(tmp_path, {"text": "### Human: a"}, format="text").text == "### Human: a"
