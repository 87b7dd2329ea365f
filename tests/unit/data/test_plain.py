"""Plain rendering: readable by a base model that knows no chat template."""

from pathlib import Path

from sftjob.data import Message
from sftjob.data.masks import IGNORED
from sftjob.data.plain import encode_plain, encode_plain_prompt, render_plain
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
    cut = encode_plain(tokenizer, CHAT, len(encoded.input_ids) - 1)
    assert (cut.truncated, cut.trained_tokens) == (True, encoded.trained_tokens - 1)


def test_a_tokenizer_that_begins_texts_does_so_here(marked_tokenizer_folder: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(marked_tokenizer_folder, template="chatml")
    ids = encode_plain(tokenizer, CHAT, 512).input_ids
    assert ids[0] == tokenizer.token_id("<s>")
    assert ids.count(ids[0]) == 1
