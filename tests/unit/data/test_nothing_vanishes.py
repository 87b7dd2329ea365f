"""What a model is meant to see reaches it, or the row is refused: columns, prompts, tools, arguments, results."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sftjob.data import read_messages
from sftjob.data.masks import encode_batch
from sftjob.data.messages import Message, Row, ToolCall
from sftjob.data.problems import Problems
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import DataError

TOOL = {"type": "function", "function": {"name": "zz", "parameters": {}}}
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
END = "<|endoftext|>"
OPEN = "{% if add_generation_prompt %}[assistant]{% endif %}"
SHOWN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}" + END + "{% endfor %}" + OPEN


@pytest.mark.parametrize("column", ["system", "tools"])
def test_a_column_that_the_format_does_not_take(tmp_path: Path, column: str) -> None:
    value = {"system": "S", "tools": [TOOL]}[column]
    alpaca = {"instruction": "a", "output": "b"}
    path = tmp_path / "f"
    path.write_text(json.dumps(alpaca | {column: value}))
    if column == "system":  # Alpaca has it
        assert read_messages(path, name="f")[0].messages[0] == Message("system", "S")
    else:
        with pytest.raises(DataError, match=r"^f:1: tools: this format takes no such column"):
            read_messages(path, name="f")
    path.write_text(json.dumps(alpaca | {column: None}))
    assert len(read_messages(path, name="f")) == 1


def test_a_system_column_beside_messages_comes_first(tmp_path: Path) -> None:
    (tmp_path / "f").write_text(json.dumps({"messages": TURNS, "system": "S"}))
    [row] = read_messages(tmp_path / "f")
    assert [message.content for message in row.messages] == ["S", "a", "b"]


def test_a_text_is_taken_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "f").write_text(json.dumps({"text": "a b", "system": "in the text already"}))
    assert read_messages(tmp_path / "f")[0].text == "a b"


CALLING = (
    Message("system", "5"),
    Message("user", "how many?"),
    Message("assistant", "", tool_calls=(ToolCall("zz", {"of": ["red", 7], "all": True}),)),
    Message("tool", "5"),
    Message("assistant", "5 of them"),
)
NAMES = "{% for t in tools or [] %}{{ t.function.name }};{% endfor %}"
NAME, ARGUMENTS = "{{ c.function.name }}", "{{ c.function.arguments | tojson }}"


def _template(*, names: str = NAMES, chosen: str = "", call: str = NAME + ARGUMENTS) -> str:
    """Writes definitions, then the chosen messages with their calls."""
    calls = "{% for c in m.tool_calls %}" + call + "{% endfor %}"
    turn = "[{{ m.role }}]{{ m.content }}" + calls + END
    return names + "{% for m in messages " + chosen + " %}" + turn + "{% endfor %}" + OPEN


WRITES = {
    "everything": (_template(), None),
    "no system prompt": (_template(chosen="if m.role != 'system'"), "messages.0.content"),
    "no result": (_template(chosen="if m.role != 'tool'"), "messages.0.content"),
    "no arguments": (_template(call=NAME), "messages.2.tool_calls.0"),
    "no definitions": (_template(names=""), "tools.0"),
}
"""The 5 of the system prompt is also the tool's result, and in the answer: whichever is lost, the first is named."""


@pytest.mark.parametrize("case", WRITES)
def test_a_piece_that_also_occurs_elsewhere_is_missed(with_template: Callable[[str], Path], case: str) -> None:
    template, field = WRITES[case]
    tokenizer = ChatTokenizer.from_folder(with_template(template))
    row = Row(CALLING, file="f", line=1, tools=(TOOL,))
    problems = Problems()
    encoded = encode_batch(tokenizer, [row], train_on="assistant", problems=problems)
    if field is None:
        assert (len(encoded), problems.rows) == (1, 0)
    else:
        assert [(problem.field, problem.reason) for problem in problems.shown] == [
            (field, "the chat template leaves it out")
        ]


@pytest.mark.parametrize("content", ["xyzzy and more", "line one\nxyzzy", "  xyzzy  ", "xy", "Bad xyzzy"])
def test_a_template_s_own_refusal_quotes_no_row(with_template: Callable[[str], Path], content: str) -> None:
    refuse = (
        "{% if messages[0].content != 'Hello' %}{{ raise_exception('Bad content: ' + messages[0].content) }}{% endif %}"
    )
    tokenizer = ChatTokenizer.from_folder(with_template(refuse + SHOWN))
    problems = Problems()
    row = Row((Message("user", content), Message("assistant", "b")), file="f", line=1)
    assert encode_batch(tokenizer, [row], train_on="assistant", problems=problems) == []
    [problem] = problems.shown
    assert problem.reason in (
        "the chat template refuses the conversation: Bad content:",
        "the chat template refuses the conversation: an error whose text quotes the row",
        "the chat template refuses the conversation: Bad content: Bad",
    )


def test_blanks_before_an_answer_are_split_as_for_a_prompt_alone(with_template: Callable[[str], Path]) -> None:
    """A byte-level tokenizer takes two line breaks as one token at the end of a text, and as two before a word."""
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}\n\n### Response:\n\n{% else %}{{ m.content }}"
        + END
        + "{% endif %}{% endfor %}"
    )
    tokenizer = ChatTokenizer.from_folder(with_template(template))
    row = Row((Message("user", "count the"), Message("assistant", "stones")), file="f", line=1)
    [(_, encoded)] = encode_batch(tokenizer, [row], train_on="assistant", problems=Problems())
    prompt = tokenizer.encode(tokenizer.render(row.messages[:1], add_generation_prompt=True))
    assert encoded.input_ids[: len(prompt)] == prompt
    assert tokenizer.decode([label for label in encoded.labels if label >= 0]) == f"stones{END}"
    # The point of it: the whole text alone would have been split otherwise.
    assert tokenizer.encode(tokenizer.render(row.messages))[: len(prompt)] != prompt
