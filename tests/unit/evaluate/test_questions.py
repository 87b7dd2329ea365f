import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from sftjob.data.messages import Message, ToolCall
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import DataError, SpecError
from sftjob.evaluate.questions import (
    HeldOutRow,
    Question,
    answer_text,
    check_prompts,
    prompt_ids,
    questions,
    stop_token_ids,
)

HELLO = Question("1", (Message("user", "Hello?"),))
NO_LONGER = "{% if messages[0]['content']|length > 5 %}{{ raise_exception('too long') }}{% endif %}"
TEMPLATE = NO_LONGER + "{% for m in messages %}[{{ m['content'] }}]{{ eos_token }}{% endfor %}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={text: id for id, text in enumerate(["<end>", *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
    return tmp_path


@pytest.fixture
def chatml(folder: Path) -> ChatTokenizer:
    return ChatTokenizer.from_folder(folder, template="chatml")


@pytest.fixture
def short(folder: Path) -> ChatTokenizer:
    """Its template takes five characters."""
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return ChatTokenizer.from_folder(folder)


def test_own_prompts_come_first_and_rows_lose_their_answer() -> None:
    row = HeldOutRow("eval.jsonl:3", (Message("system", "Be brief."), Message("user", "2?"), Message("assistant", "4")))
    lonely = HeldOutRow("eval.jsonl:4", (Message("assistant", "4"),))
    own, held_out = questions(["Hello?"], [row, lonely])
    assert (own.id, own.text, own.reference) == ("prompt 1", "Hello?", None)
    assert (held_out.id, held_out.text, held_out.reference) == ("eval.jsonl:3", "system: Be brief.\n\nuser: 2?", "4")


def test_rows_without_an_answer_in_words_are_not_asked() -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("f", {}),))
    rows = [HeldOutRow("a:1", (), text="a text"), HeldOutRow("a:2", (Message("user", "2?"), call))]
    assert questions([], rows) == ()


def test_tools_are_shown_with_the_question(chatml: ChatTokenizer) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    row = HeldOutRow("a:1", (Message("user", "Rain?"), Message("assistant", "No.")), tools=(tool,))
    [question] = questions([], [row])
    assert question.tools == (tool,)
    assert '"name": "weather"' in chatml.decode(prompt_ids(chatml, question, "template"))


def test_prompts_end_where_the_answer_begins(chatml: ChatTokenizer) -> None:
    assert (
        chatml.decode(prompt_ids(chatml, HELLO, "template"))
        == "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chatml.decode(prompt_ids(chatml, HELLO, "plain")) == "User: Hello?\n\nAssistant:"


def test_answers_stop_at_the_turn_s_end_or_at_the_base_s_own(chatml: ChatTokenizer) -> None:
    turn_end, base_end = chatml.token_id("<|im_end|>"), chatml.token_id("<end>")
    assert stop_token_ids(chatml, "template") == (turn_end,)
    assert set(stop_token_ids(chatml, "plain")) == {turn_end, base_end}


@pytest.mark.parametrize(
    ("text", "prompt_format", "answer"),
    [
        (" 4 <|im_start|>\n", "template", "4"),
        (" 4\n\nUser: and 3 + 3?\n\nAssistant: 6", "plain", "4"),
        (" 4\n\nUser: and", "template", "4\n\nUser: and"),
        ("The User: is right", "plain", "The User: is right"),
    ],
)
def test_answer_text(chatml: ChatTokenizer, text: str, prompt_format: str, answer: str) -> None:
    assert answer_text(chatml, chatml.encode(text), prompt_format) == answer  # type: ignore[arg-type]


def test_control_tokens_in_prompts_are_refused(chatml: ChatTokenizer) -> None:
    check_prompts(chatml, ["fine", "also < fine >"])
    with pytest.raises(SpecError, match=r"control token <\|im_end\|>") as refused:
        check_prompts(chatml, ["fine", "not <|im_end|> fine"])
    assert refused.value.problems[0].field == "evaluation.generation.prompts.1"


def test_what_the_template_refuses_is_refused(short: ChatTokenizer) -> None:
    with pytest.raises(SpecError, match="too long") as refused:
        check_prompts(short, ["short", "longer"])
    assert refused.value.problems[0].field == "evaluation.generation.prompts.1"
    with pytest.raises(DataError, match=r"^eval\.jsonl:9: .*too long"):
        prompt_ids(short, Question("eval.jsonl:9", HELLO.messages), "template")
