"""How a file's format is found, that formats agree, and real files against counts that know no converter."""

import json
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest

from sftjob.data import Message, Row, iter_messages, read_messages
from sftjob.data.formats import FORMATS, convert_rows
from sftjob.data.problems import Problems
from sftjob.data.raw_rows import RawRow
from sftjob.errors import DataError, InputMissing, Problem, SpecError
from sftjob.spec.data import FORMAT_COLUMNS, Format

CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "And 3+3?"},
        {"role": "assistant", "content": "6"},
    ]
}


def _lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_messages_keep_order_roles_and_place(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text(f"\n{json.dumps(CHAT)}\n  \r\n{json.dumps(CHAT)}")
    first, second = read_messages(path, name="chat.jsonl")
    assert (first.line, second.line) == (2, 4)
    assert [message.role for message in first.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert second.messages[-1] == Message("assistant", "6")
    assert second.id == "chat.jsonl:4"


def test_prompt_completion_equals_the_same_messages(tmp_path: Path) -> None:
    asked = _lines(
        tmp_path / "a.jsonl",
        {"question": "2+2?", "answer": "4", "rules": "Be brief.", "id": 7},
        {"question": "3+3?", "answer": "6", "rules": None},
    )
    chat = _lines(
        tmp_path / "b.jsonl",
        {"messages": CHAT["messages"][:3]},
        {"messages": [{"role": "user", "content": "3+3?"}, {"role": "assistant", "content": "6", "name": None}]},
    )
    columns = {"prompt": "question", "completion": "answer", "system": "rules"}
    from_columns = read_messages(asked, format="prompt_completion", columns=columns, name="x")
    assert from_columns == read_messages(chat, format="messages", name="x")


TREE = {
    "message_tree_id": "1",
    "prompt": {"text": "a", "role": "prompter", "replies": [{"text": "b", "role": "assistant"}]},
}
SHARED_GPT = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
ALPACA = {"instruction": "a", "input": "", "output": "b", "text": "a b"}


@pytest.mark.parametrize(
    ("row", "columns", "turns"),
    [
        (CHAT, None, 5),
        ({**CHAT, "prompt": "a", "prompt_id": "b"}, None, 5),
        ({"prompt": "a", "completion": "b"}, None, 2),
        ({"prompt": "a", "completion": "b", "system": "c"}, None, 3),
        ({"prompt": "a", "completion": "b", "system": ""}, None, 2),
        ({"chat": CHAT["messages"]}, {"messages": "chat"}, 5),
        ({"q": "a", "completion": "b"}, {"prompt": "q"}, 2),
        ({**CHAT, "q": "a", "completion": "b"}, {"prompt": "q"}, 2),
        (SHARED_GPT, None, 2),
        ({"talk": [{"who": "gpt", "says": "a"}]}, {"conversations": "talk", "role": "who", "content": "says"}, 1),
        (ALPACA, None, 2),
        ({"question": "a", "output": "b"}, {"instruction": "question"}, 2),
        (TREE, None, 2),
        ({"text": "### Human: a### Assistant: b"}, None, 2),
        ({"body": "### Human: a### Assistant: b"}, {"text": "body"}, 2),
        ({"text": "a ### Human: b"}, None, 0),
        ({"body": "a"}, {"text": "body"}, 0),
    ],
)
def test_auto_goes_by_columns(
    tmp_path: Path, row: dict[str, object], columns: dict[str, str] | None, turns: int
) -> None:
    [found] = read_messages(_lines(tmp_path / "a.jsonl", row), columns=columns)
    assert len(found.messages) == turns
    assert (found.text is None) == (turns > 0)


def test_every_format_of_the_spec_is_here() -> None:
    assert set(FORMATS) == FORMAT_COLUMNS.keys() == set(get_args(Format)) - {"auto"}
    for name, row_format in FORMATS.items():
        assert row_format.columns == FORMAT_COLUMNS[name]
        assert {*row_format.required, *row_format.inner} <= set(row_format.columns)
        assert row_format.convert.__doc__, "says what it takes"


def test_the_first_row_fixes_the_format_of_a_file(tmp_path: Path) -> None:
    human = {"text": "### Human: a### Assistant: b"}
    plain = _lines(tmp_path / "plain.jsonl", {"text": "a"}, human)
    assert [row.text for row in read_messages(plain)] == ["a", human["text"]]
    with pytest.raises(DataError, match=r"^f:2: text: no turn; "):
        read_messages(_lines(tmp_path / "marked.jsonl", human, {"text": "a"}), name="f")


def test_the_first_row_that_can_be_read_tells_the_format(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{{\n{json.dumps(ALPACA)}\n")
    problems = Problems(allowed=1)
    assert len(list(iter_messages(path, problems=problems))) == 1
    assert problems.rows == 1


def test_the_caller_may_collect_the_mistakes(tmp_path: Path) -> None:
    good, bad = {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": ""}
    path = _lines(tmp_path / "a.jsonl", bad, good, bad)
    problems = Problems(allowed=2)
    assert [row.line for row in iter_messages(path, name="f", problems=problems)] == [2]
    problems.raise_any()
    assert [row.line for row in iter_messages(path, name="g", problems=problems)] == [2]
    assert problems.rows == 4
    with pytest.raises(DataError) as caught:
        problems.raise_any()
    assert str(caught.value).splitlines() == [f"{name}:{line}: completion: empty" for name in "fg" for line in (1, 3)]


def test_a_row_with_several_mistakes_is_one_row(tmp_path: Path) -> None:
    tree = [
        {"message_id": "1", "text": "", "role": "x"},
        {"message_id": "2", "parent_id": "1", "text": "", "role": "y"},
    ]
    for rows in ([{"prompt": "", "completion": ""}], tree):
        problems = Problems()
        assert not list(iter_messages(_lines(tmp_path / "a.jsonl", *rows), problems=problems))
        assert (problems.rows, len(problems.shown)) == (1, 2)


def test_rows_from_elsewhere_are_converted_alike() -> None:
    lost = RawRow(9, None, Problem(file="hub", line=9, reason="the connection broke"), fatal=True)
    raws = [RawRow(7, None, {"q": "a", "completion": "b"}), RawRow(8, None, {"q": "a", "completion": None}), lost]
    problems = Problems(allowed=5)
    rows = list(convert_rows(raws, file="hub", format="auto", columns={"prompt": "q"}, problems=problems))
    assert rows == [Row((Message("user", "a"), Message("assistant", "b")), file="hub", line=7)]
    with pytest.raises(DataError) as caught:
        problems.raise_any()
    assert str(caught.value).splitlines() == [
        "hub:8: completion: must be a string, not null",
        "hub:9: the connection broke",
    ]


def test_no_rows_are_no_rows() -> None:
    problems = Problems()
    for format in get_args(Format):
        assert not list(convert_rows([], file="f", format=format, columns={}, problems=problems))
    problems.raise_any()


def test_array_rows_know_line_and_index(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    row = json.dumps({"prompt": "a", "completion": "b"})
    path.write_text(f"\n[\n  {row},\n\n  {row}, {row}]\n")
    rows = read_messages(path, name="a.json")
    assert [(row.line, row.index) for row in rows] == [(3, 0), (5, 1), (5, 2)]
    assert [row.id for row in rows] == ["a.json:3[0]", "a.json:5[1]", "a.json:5[2]"]


def test_rows_come_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\nbroken\n')
    first = next(iter_messages(path, name="a"))
    assert first == Row((Message("user", "a"), Message("assistant", "b")), file="a", line=1)


@pytest.mark.parametrize(
    ("format", "columns", "message"),
    [
        (
            "messages",
            {"prompt": "q"},
            "columns.prompt: the format `messages` has no such column; it has messages, role, content, tools, system",
        ),
        (
            "auto",
            {"prompt": "q", "messages": "m"},
            "columns: mixes the columns of several formats; keep those of one format",
        ),
        (
            "auto",
            {"inptu": "q"},
            "columns.inptu: the format `auto` has no such column; it has messages, role, content, tools, system,"
            " conversations, instruction, input, output, history, prompt, completion, message_id, parent_id, text,"
            " rank",
        ),
    ],
)
def test_columns_must_be_the_formats(tmp_path: Path, format: str, columns: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_messages(_lines(tmp_path / "a.jsonl", CHAT), format=format, columns=columns)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match=r"^gone\.jsonl: no such file; check the path$"):
        read_messages(tmp_path / "gone.jsonl", name="gone.jsonl")
    with pytest.raises(InputMissing, match=r"^here: is a folder; name a data file in it$"):
        read_messages(tmp_path, name="here")


class TestRealFiles:
    """Counted again with nothing but `json`."""

    def test_gsm8k(self, shared_data: Path) -> None:
        for name, size in (("gsm8k_train.jsonl", 7473), ("gsm8k_test.jsonl", 1319)):
            path = shared_data / name
            rows = read_messages(path, columns={"prompt": "question", "completion": "answer"}, name=name)
            written = [json.loads(line) for line in path.read_text().splitlines()]
            assert len(rows) == size
            assert [[m.content for m in row.messages] for row in rows] == [
                [row["question"], row["answer"]] for row in written
            ]

    def test_alpaca(self, shared_data: Path) -> None:
        rows = read_messages(shared_data / "alpaca_en.json")
        written = json.loads((shared_data / "alpaca_en.json").read_text())
        assert len(rows) == len(written) == 999
        assert {tuple(m.role for m in row.messages) for row in rows} == {("user", "assistant")}
        assert sum(bool(row["input"]) for row in written) == 412
        for row, given in zip(rows, written, strict=True):
            question, answer = (message.content for message in row.messages)
            assert question.startswith(given["instruction"])
            assert question.endswith(given["input"])
            joint = 2 if given["input"] else 0
            assert len(question) == len(given["instruction"]) + joint + len(given["input"])
            assert answer == given["output"]

    def test_glaive(self, shared_data: Path) -> None:
        rows = read_messages(shared_data / "glaive_toolcall_en.json")
        written = json.loads((shared_data / "glaive_toolcall_en.json").read_text())
        speakers = Counter(turn["from"] for row in written for turn in row["conversations"])
        roles = Counter(message.role for row in rows for message in row.messages)
        assert len(rows) == len(written) == 300
        assert roles == {
            "user": speakers["human"],
            "assistant": speakers["gpt"] + speakers["function_call"],
            "tool": speakers["observation"],
        }
        calls = [call for row in rows for message in row.messages for call in message.tool_calls]
        assert len(calls) == speakers["function_call"] == 211
        assert [{"name": call.name, "arguments": call.arguments} for call in calls] == [
            json.loads(turn["value"])
            for row in written
            for turn in row["conversations"]
            if turn["from"] == "function_call"
        ]
        assert [[tool["function"] for tool in row.tools] for row in rows] == [
            json.loads(row["tools"]) for row in written
        ]
        spoken = [m.content for row in rows for m in row.messages if not m.tool_calls]
        assert spoken == [
            turn["value"] for row in written for turn in row["conversations"] if turn["from"] != "function_call"
        ]
