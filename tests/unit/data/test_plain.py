"""Plain rendering: readable by a base model that knows no chat template."""

from pathlib import Path

import pytest

from sftjob.data import Message
from sftjob.data.masks import IGNORED, TrainedSpan
from sftjob.data.plain import encode_plain, encode_plain_prompt, encode_text, render_plain
from sftjob.data.tokenizer import ChatTokenizer

CHAT = (
    Message("system", "count"),
    Message("user", "red"),
    Message("assistant", "blue"),
    Message("user", "of"),
    Message("assistant", "stones"),
)


def test_prompt_and_answer() -> None:
    prompt, answer = render_plain(CHAT)
    assert prompt == "System: count\n\nUser: red\n\nAssistant: blue\n\nUser: of\n\nAssistant:"
    assert answer == " stones"


def test_a_prompt_without_answer() -> None:
    assert render_plain(CHAT[:2]) == ("System: count\n\nUser: red\n\nAssistant:", "")


def test_the_answer_and_the_base_models_end_token_are_trained(tiny_tokenizer_folder: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_tokenizer_folder, template="chatml")
    encoded = encode_plain(tokenizer, CHAT, 512)
    trained = [label for label in encoded.labels if label != IGNORED]
    assert tokenizer.decode(trained) == " stones<|endoftext|>"
    assert encoded.input_ids[-len(trained) :] == trained
    assert encoded.input_ids[: -len(trained)] == encode_plain_prompt(tokenizer, CHAT)
    first, end = len(encoded.input_ids) - len(trained), len(encoded.input_ids)
    assert encoded.spans == (TrainedSpan(first, end, "assistant", stop=True),)
    cut = encode_plain(tokenizer, CHAT, len(encoded.input_ids) - 1)
    assert cut.spans == (TrainedSpan(first, end - 1, "assistant", stop=False),)
    assert (cut.truncated, cut.trained_tokens) == (True, encoded.trained_tokens - 1)


def test_a_tokenizer_that_begins_texts_does_so_here(marked_tokenizer_folder: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(marked_tokenizer_folder, template="chatml")
    ids = encode_plain(tokenizer, CHAT, 512).input_ids
    assert ids[0] == tokenizer.token_id("<s>")
    assert ids.count(ids[0]) == 1


def test_no_messages_are_no_mistake(tiny_tokenizer_folder: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_tokenizer_folder, template="chatml")
    assert tokenizer.decode(encode_plain_prompt(tokenizer, ())) == "Assistant:"
    assert tokenizer.decode(encode_plain(tokenizer, (), 64).input_ids) == "Assistant:<|endoftext|>"


def test_results_of_tools_are_shown(tiny_tokenizer_folder: Path) -> None:
    assert render_plain((*CHAT[:2], Message("tool", "3")))[0] == "System: count\n\nUser: red\n\nTool: 3\n\nAssistant:"


@pytest.mark.parametrize(
    ("text", "ids_of"),
    [
        ("red", "<s>red</s>"),
        ("<s>red", "<s>red</s>"),
        ("red</s>", "<s>red</s>"),
        ("<s>red</s> \n", "<s>red</s>"),
        ("red</s>blue ", "<s>red</s>blue </s>"),
    ],
)
def test_a_text_is_begun_and_ended_once(marked_tokenizer_folder: Path, text: str, ids_of: str) -> None:
    tokenizer = ChatTokenizer.from_folder(marked_tokenizer_folder, template="chatml")
    encoded = encode_text(tokenizer, text)
    begin, end = tokenizer.token_id("<s>"), tokenizer.token_id("</s>")
    inner = text.removeprefix("<s>") if text.startswith("<s>") else text
    assert encoded.input_ids[0] == begin
    assert encoded.input_ids[-1] == end
    assert encoded.input_ids.count(begin) == 1
    assert encoded.input_ids.count(end) == ids_of.count("</s>")
    if inner == text:
        # What is added is added to the ids: the first word is marked as it was in pre-training.
        assert encoded.input_ids[1:3] == tokenizer.encode(text)[:2]
    assert encoded.labels == [IGNORED, *encoded.input_ids[1:]]
    assert encoded.spans == (TrainedSpan(1, len(encoded.input_ids), "text", stop=True),)
    assert encoded.trained_by_role == {"text": encoded.trained_tokens}


def test_a_text_without_a_beginning_token(tiny_tokenizer_folder: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(tiny_tokenizer_folder, template="chatml")
    assert tokenizer.decode(encode_text(tokenizer, "red stones").input_ids) == "red stones<|endoftext|>"
    assert encode_text(tokenizer, "").labels == [IGNORED]
