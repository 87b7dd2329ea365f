"""`messages` and `sharegpt`: what a conversation may hold, and that nothing of it is lost."""

import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from sftjob.data import Message, Row, read_messages
from sftjob.data.messages import Tool, ToolCall, as_dicts

TOOL = {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {"a": {"default": None}}}}
WRAPPED = {"type": "function", "function": TOOL}
ASKED, ANSWERED = Message("user", "2+2?"), Message("assistant", "4")


def read_one(path: Path, row: object, **options: object) -> Row:
    file = path / "f.jsonl"
    file.write_text(json.dumps(row))
    [found] = read_messages(file, name="f", **options)  # type: ignore[arg-type]
    return found


def chat(*turns: object, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "2+2?"}, *turns], **more}


def said(content: object, **more: object) -> dict[str, object]:
    return {"role": "assistant", "content": content, **more}


class TestMessages:
    @pytest.mark.parametrize(
        "call",
        [
            {"type": "function", "id": "c1", "function": {"name": "add", "arguments": {"a": [2, None]}}},
            {"type": "function", "id": "c1", "function": {"name": "add", "arguments": '{"a": [2, null]}'}},
            {"id": "c1", "name": "add", "arguments": {"a": [2, None]}, "type": None},
            {"id": "c1", "name": "add", "arguments": '{"a": [2, null]}', "function": None},
        ],
    )
    def test_tool_calls(self, tmp_path: Path, call: object) -> None:
        row = read_one(
            tmp_path,
            chat(
                said(None, tool_calls=[call]),
                {"role": "tool", "content": "", "tool_call_id": "c1", "name": "add"},
                {"role": "tool", "content": "4"},
                said("4", reasoning_content="Two and two."),
            ),
        )
        assert row.messages == (
            ASKED,
            Message("assistant", "", (ToolCall("add", {"a": [2, None]}, "c1"),)),
            Message("tool", "", name="add", tool_call_id="c1"),
            Message("tool", "4"),
            Message("assistant", "4", reasoning_content="Two and two."),
        )

    @pytest.mark.parametrize("missing", [{}, {"content": None}, {"content": ""}, {"content": []}])
    def test_a_call_needs_no_content(self, tmp_path: Path, missing: dict[str, object]) -> None:
        call = {"name": "add", "arguments": {}}
        row = read_one(tmp_path, chat({"role": "assistant", "tool_calls": [call], **missing}))
        assert row.messages[1] == Message("assistant", "", (ToolCall("add", {}),))

    @pytest.mark.parametrize(
        ("tools", "found"),
        [
            ([WRAPPED], (WRAPPED,)),
            ([TOOL], (WRAPPED,)),
            ([{**TOOL, "type": "function"}], (WRAPPED,)),
            ([{"function": TOOL}], (WRAPPED,)),
            (json.dumps([TOOL]), (WRAPPED,)),
            *((nothing, ()) for nothing in ([], "[]", "null", " ", None)),
        ],
    )
    def test_tools(self, tmp_path: Path, tools: object, found: tuple[Tool, ...]) -> None:
        assert read_one(tmp_path, chat(said("4"), tools=tools)).tools == found

    def test_parts_of_text_are_joined(self, tmp_path: Path) -> None:
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": " b", "image_url": None}]
        assert read_one(tmp_path, chat(said(parts))).messages[1].content == "a b"

    @pytest.mark.parametrize(
        ("flags", "train"),
        [
            ({}, None),
            ({"train": None, "weight": None}, None),
            ({"train": True}, True),
            ({"train": False}, False),
            ({"weight": 1}, True),
            ({"weight": 0}, False),
            ({"weight": 0.0, "train": False}, False),
        ],
    )
    def test_train_flags(self, tmp_path: Path, flags: dict[str, object], train: bool | None) -> None:
        row = read_one(tmp_path, chat(said("5", **flags), said("4")))
        assert row.messages == (ASKED, Message("assistant", "5", train=train), ANSWERED)

    def test_nulls_that_a_table_fills_in(self, tmp_path: Path) -> None:
        nulls = dict.fromkeys(("tool_calls", "name", "tool_call_id", "reasoning_content", "train", "images"))
        turns = [{"role": "user", "content": "2+2?", **nulls}, {**said("4"), **nulls}]
        assert read_one(tmp_path, {"messages": turns, "tools": None}).messages == (ASKED, ANSWERED)

    def test_renamed_keys(self, tmp_path: Path) -> None:
        turns = [{"who": "user", "says": "2+2?"}, {"who": "assistant", "says": "4"}]
        columns = {"messages": "talk", "role": "who", "content": "says", "tools": "functions"}
        row = read_one(tmp_path, {"talk": turns, "functions": [TOOL]}, columns=columns)
        assert (row.messages, row.tools) == ((ASKED, ANSWERED), (WRAPPED,))

    def test_sharegpts_words(self, tmp_path: Path) -> None:
        turns = [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4", "weight": 1}]
        row = read_one(tmp_path, {"messages": turns})
        assert row.messages == (ASKED, Message("assistant", "4", train=True))

    def test_several_turns_of_the_user(self, tmp_path: Path) -> None:
        row = read_one(tmp_path, chat({"role": "user", "content": "Well?"}, said("4")))
        assert row.messages == (ASKED, Message("user", "Well?"), ANSWERED)


class TestSharegpt:
    @pytest.mark.parametrize("speaker", ["gpt", "assistant", "chatgpt", "bard", "bing"])
    @pytest.mark.parametrize("asker", ["human", "user"])
    def test_speakers(self, tmp_path: Path, asker: str, speaker: str) -> None:
        turns = [{"from": asker, "value": "2+2?"}, {"from": speaker, "value": "4"}]
        assert read_one(tmp_path, {"conversations": turns}).messages == (ASKED, ANSWERED)

    @pytest.mark.parametrize(("asker", "speaker"), [("user", "assistant"), ("human", "gpt")])
    def test_chatmls_keys(self, tmp_path: Path, asker: str, speaker: str) -> None:
        turns = [{"role": asker, "content": "2+2?"}, {"role": speaker, "content": "4"}]
        assert read_one(tmp_path, {"conversations": turns}).messages == (ASKED, ANSWERED)

    @pytest.mark.parametrize("system", [{"system": "Be brief."}, {}])
    def test_system_in_a_column_or_first(self, tmp_path: Path, system: dict[str, object]) -> None:
        turns = [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]
        if not system:
            turns.insert(0, {"from": "system", "value": "Be brief."})
        row = read_one(tmp_path, {"conversations": turns, **system})
        assert row.messages == (Message("system", "Be brief."), ASKED, ANSWERED)

    @pytest.mark.parametrize("answerer", ["observation", "tool"])
    @pytest.mark.parametrize(
        "value",
        ['{"name": "add", "arguments": {"a": 1}}', '[{"name": "add", "arguments": "{\\"a\\": 1}"}]'],
    )
    def test_calls(self, tmp_path: Path, value: str, answerer: str) -> None:
        turns = [
            {"from": "human", "value": "2+2?"},
            {"from": "function_call", "value": value},
            {"from": answerer, "value": "4"},
            {"from": "gpt", "value": "4"},
        ]
        row = read_one(tmp_path, {"conversations": turns, "tools": json.dumps([TOOL])})
        call = Message("assistant", "", (ToolCall("add", {"a": 1}),))
        assert row.messages == (ASKED, call, Message("tool", "4"), ANSWERED)
        assert row.tools == (WRAPPED,)

    def test_renamed_keys(self, tmp_path: Path) -> None:
        turns = [{"speaker": "human", "text": "2+2?"}, {"speaker": "gpt", "text": "4"}]
        columns = {"conversations": "dialog", "role": "speaker", "content": "text", "system": "rules"}
        row = read_one(tmp_path, {"dialog": turns, "rules": "Be brief."}, columns=columns)
        assert row.messages == (Message("system", "Be brief."), ASKED, ANSWERED)


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_SAID = _TEXT.filter(lambda text: bool(text.strip()))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_CALL = st.builds(ToolCall, _SAID, st.dictionaries(_TEXT, _JSON, max_size=3), st.none() | _SAID)
_ANSWER = st.builds(
    Message,
    st.just("assistant"),
    _SAID,
    st.lists(_CALL, max_size=2).map(tuple),
    reasoning_content=st.just("") | _SAID,
    train=st.none() | st.booleans(),
)
_CALLS = st.builds(Message, st.just("assistant"), _TEXT, st.lists(_CALL, min_size=1, max_size=2).map(tuple))
_RESULT = st.builds(Message, st.just("tool"), _TEXT, name=st.none() | _SAID, tool_call_id=st.none() | _SAID)
_ROUND = st.one_of(
    st.lists(st.builds(Message, st.just("user"), _SAID), min_size=1, max_size=2),
    _ANSWER.map(lambda answer: [answer]),
    st.tuples(_CALLS, st.lists(_RESULT, min_size=1, max_size=2)).map(lambda calls: [calls[0], *calls[1]]),
)
_TOOLS = st.lists(st.fixed_dictionaries({"name": _SAID, "parameters": st.dictionaries(_TEXT, _JSON, max_size=2)}))


@st.composite
def _conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    system = draw(st.lists(st.builds(Message, st.just("system"), _SAID), max_size=1))
    rounds = draw(st.lists(_ROUND, max_size=4))
    last = draw(_ANSWER.filter(lambda answer: answer.train is not False))
    return (*system, *(message for turns in rounds for message in turns), last)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(conversations=st.lists(st.tuples(_conversations(), _TOOLS), min_size=1, max_size=3))
def test_what_is_written_is_read_again(
    tmp_path: Path, conversations: list[tuple[tuple[Message, ...], list[Tool]]]
) -> None:
    rows = [
        Row(messages, "f", line, tools=tuple({"type": "function", "function": tool} for tool in tools))
        for line, (messages, tools) in enumerate(conversations, start=1)
    ]
    path = tmp_path / "f.jsonl"
    lines = [json.dumps({"messages": as_dicts(row.messages), "tools": row.tools}) + "\n" for row in rows]
    path.write_text("".join(lines))
    assert read_messages(path, name="f") == rows


def test_a_cell_of_a_csv_file_holds_messages_as_json(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": 'a "b",\nc'}, {"role": "assistant", "content": "d"}]
    cell = json.dumps(turns).replace('"', '""')
    (tmp_path / "f.csv").write_text(f'id,messages\n1,"{cell}"\n')
    [row] = read_messages(tmp_path / "f.csv")
    assert [(message.role, message.content) for message in row.messages] == [("user", 'a "b",\nc'), ("assistant", "d")]
