"""`oasst`: which path through a tree becomes the conversation, whole trees and flat messages alike."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from sftjob.data import Message, Row, read_messages
from sftjob.errors import DataError

Tree = dict[str, object]


def prompter(text: str, *replies: Tree, **more: object) -> Tree:
    return {"text": text, "role": "prompter", "replies": list(replies), **more}


def assistant(text: str, *replies: Tree, **more: object) -> Tree:
    return {"text": text, "role": "assistant", "replies": list(replies), **more}


def flat(tree: Tree, parent: str | None = None) -> Iterator[Tree]:
    """The messages of a tree; every text is unique, so it serves as id."""
    message = {key: value for key, value in tree.items() if key != "replies"}
    yield {"message_id": f"id-{tree['text']}", "parent_id": parent, **message}
    for reply in tree["replies"]:  # type: ignore[attr-defined]
        yield from flat(reply, f"id-{tree['text']}")


def read(path: Path, *rows: object, **options: object) -> list[Row]:
    file = path / "f.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_messages(file, name="f", **options)  # type: ignore[arg-type]


CASES: dict[str, tuple[Tree, str, int]] = {
    "one answer": (prompter("a", assistant("b")), "a b", 0),
    "the lowest rank": (
        prompter("a", assistant("b", rank=2), assistant("c", rank=0), assistant("d", rank=1)),
        "a c",
        2,
    ),
    "ranks of a table": (prompter("a", assistant("b", rank=1.0), assistant("c", rank=0.0)), "a c", 1),
    "unranked last": (prompter("a", assistant("b"), assistant("c", rank=None), assistant("d", rank=7)), "a d", 2),
    "else the first": (prompter("a", assistant("b"), assistant("c")), "a b", 1),
    "of equals the first": (prompter("a", assistant("b", rank=0), assistant("c", rank=0)), "a b", 1),
    "ends at an answer": (prompter("a", assistant("b", prompter("c"))), "a b", 1),
    "deep": (
        prompter("a", assistant("b", prompter("c", assistant("d", prompter("e", assistant("f"))))), assistant("g")),
        "a b c d e f",
        1,
    ),
    "deleted": (prompter("a", assistant("b", prompter("x"), rank=0, deleted=True), assistant("c", rank=1)), "a c", 2),
    "turned down": (prompter("a", assistant("b", review_result=False), assistant("c", review_result=True)), "a c", 1),
    "not reviewed": (prompter("a", assistant("b", review_result=None, deleted=False)), "a b", 0),
    "a deleted question": (prompter("a", assistant("b", prompter("c", assistant("d"), deleted=True))), "a b", 2),
    "a broken alternative's text": (prompter("a", assistant("b"), assistant("")), "a b", 1),
}


@pytest.mark.parametrize(("tree", "path", "left_out"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("shape", ["tree", "flat", "root last"])
def test_the_best_path(tmp_path: Path, tree: Tree, path: str, left_out: int, shape: str) -> None:
    rows = [{"message_tree_id": "1", "tree_state": "ready", "prompt": tree}] if shape == "tree" else [*flat(tree)]
    if shape == "root last":
        rows = rows[1:] + rows[:1]
    [row] = read(tmp_path, *rows)
    roles = ("user", "assistant")
    assert row.messages == tuple(Message(roles[at % 2], text) for at, text in enumerate(path.split()))  # type: ignore[arg-type]
    assert row.left_out == left_out


def test_several_trees_in_one_flat_file(tmp_path: Path) -> None:
    trees = [
        prompter(f"q{at}", assistant(f"a{at}", prompter(f"r{at}"), rank=1), assistant(f"b{at}", rank=0))
        for at in range(5)
    ]
    messages = [message for tree in trees for message in flat(tree)]
    random.Random(3).shuffle(messages)
    lines = {message["text"]: line for line, message in enumerate(messages, start=1)}
    rows = read(tmp_path, *messages)
    assert [row.line for row in rows] == sorted(lines[f"q{at}"] for at in range(5))
    for row in rows:
        asked, answered = row.messages
        assert lines[asked.content] == row.line
        assert answered.content == asked.content.replace("q", "b")
        assert row.left_out == 2


def test_renamed_and_absent_columns(tmp_path: Path) -> None:
    columns = {"message_id": "id", "parent_id": "parent", "role": "who", "text": "says", "rank": "place"}
    rows = read(
        tmp_path,
        {"id": "1", "who": "prompter", "says": "a"},
        {"id": "2", "who": "assistant", "says": "b", "parent": "1", "place": 1},
        {"id": "3", "who": "assistant", "says": "c", "parent": "1", "place": 0},
        columns=columns,
    )
    assert [message.content for message in rows[0].messages] == ["a", "c"]
    tree = {"says": "a", "who": "prompter", "replies": [{"says": "b", "who": "assistant"}]}
    [row] = read(tmp_path, {"root": tree}, columns={"prompt": "root", "role": "who", "text": "says"})
    assert [message.content for message in row.messages] == ["a", "b"]


@pytest.mark.parametrize("column", ["parent_id", "rank"])
def test_a_mapped_column_must_be_somewhere(tmp_path: Path, column: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, *flat(CASES["one answer"][0]), columns={column: "nowhere"})
    assert str(caught.value).startswith("f:1: nowhere: no such column; the row has `message_id`")
    assert len(str(caught.value).splitlines()) == 1


def test_a_bad_tree_costs_one_row_and_not_its_neighbours(tmp_path: Path) -> None:
    bad = prompter("a", assistant("", prompter("b", role="user")), assistant("c"))
    with pytest.raises(DataError) as caught:
        read(tmp_path, *flat(bad), *flat(prompter("d", assistant("e"))))
    assert str(caught.value).splitlines() == ["f:3: role: unknown role `user`; use prompter or assistant"]


def test_a_deep_tree(tmp_path: Path) -> None:
    tree = assistant("0")
    for depth in range(1, 300):
        tree = (assistant if depth % 2 == 0 else prompter)(str(depth), tree)
    [row] = read(tmp_path, {"prompt": tree})
    assert len(row.messages) == 300
    rows = read(tmp_path, *reversed([*flat(tree)]))
    assert [message.content for message in rows[0].messages] == [message.content for message in row.messages]
