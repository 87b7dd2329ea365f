"""What the converters take, and that `prompt_completion` and `messages` say the same."""

import json
from pathlib import Path

import pytest

from sftjob.data import Message, Row, iter_messages, read_messages
from sftjob.errors import InputMissing, SpecError

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


@pytest.mark.parametrize(
    ("row", "columns", "turns"),
    [
        (CHAT, None, 5),
        ({"prompt": "a", "completion": "b"}, None, 2),
        ({"prompt": "a", "completion": "b", "system": "c"}, None, 3),
        ({"prompt": "a", "completion": "b", "system": ""}, None, 2),
        ({"chat": CHAT["messages"]}, {"messages": "chat"}, 5),
        ({"q": "a", "completion": "b"}, {"prompt": "q"}, 2),
        ({**CHAT, "q": "a", "completion": "b"}, {"prompt": "q"}, 2),
    ],
    ids=["messages", "prompt", "system", "empty system", "mapped messages", "mapped prompt", "mapping decides"],
)
def test_auto_goes_by_columns(
    tmp_path: Path, row: dict[str, object], columns: dict[str, str] | None, turns: int
) -> None:
    [found] = read_messages(_lines(tmp_path / "a.jsonl", row), columns=columns)
    assert len(found.messages) == turns


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
        ("messages", {"prompt": "q"}, "columns.prompt: the format `messages` has no such column; it has messages"),
        (
            "auto",
            {"prompt": "q", "messages": "m"},
            "columns: mixes the columns of several formats; keep those of one format",
        ),
        (
            "auto",
            {"input": "q"},
            "columns.input: the format `auto` has no such column; it has messages, prompt, completion, system",
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
    with pytest.raises(InputMissing, match=r"^here: is a folder; name a JSON Lines file in it$"):
        read_messages(tmp_path, name="here")
