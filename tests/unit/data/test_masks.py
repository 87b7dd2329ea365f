"""Masks: exactly the assistant's turns and their end tokens are trained, whatever the text."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftjob.data import Message, Row
from sftjob.data.masks import IGNORED, Encoded, encode_messages, encode_rows
from sftjob.data.template import IM_END
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import ConfigurationError, DataError

CHAT = (
    Message("system", "count"),
    Message("user", "red"),
    Message("assistant", "blue"),
    Message("user", "of"),
    Message("assistant", "\n\nstones"),
)
WithTemplate = Callable[[str], Path]


@pytest.fixture(scope="module")
def chatml(tiny_tokenizer_folder: Path) -> ChatTokenizer:
    return ChatTokenizer.from_folder(tiny_tokenizer_folder, template="chatml")


@pytest.fixture(scope="module")
def real(tiny_base: Path) -> ChatTokenizer:
    return ChatTokenizer.from_folder(tiny_base, template="chatml")


def test_golden_tokens_and_mask(chatml: ChatTokenizer) -> None:
    encoded = encode_messages(chatml, CHAT[1:3])
    shown = [
        (chatml.decode([id]), label != IGNORED) for id, label in zip(encoded.input_ids, encoded.labels, strict=True)
    ]
    assert shown == [
        ("<|im_start|>", False),
        ("user", False),
        ("\n", False),
        ("red", False),
        ("<|im_end|>", False),
        ("\n", False),
        ("<|im_start|>", False),
        ("assistant", False),
        ("\n", False),
        ("blue", True),
        ("<|im_end|>", True),
        ("\n", False),
    ]
    assert [label for label in encoded.labels if label != IGNORED] == encoded.input_ids[9:11]


def test_every_turn_of_the_assistant_is_trained(chatml: ChatTokenizer) -> None:
    encoded = encode_messages(chatml, CHAT)
    assert _spans(chatml, encoded) == ["blue<|im_end|>", "\n\nstones<|im_end|>"]
    assert (encoded.truncated, encoded.straddling) == (False, 0)


def test_a_token_that_straddles_the_boundary_is_split_as_inference_does(chatml: ChatTokenizer) -> None:
    text = chatml.render(CHAT)
    assert len(chatml.encode("\n\n")) == 1, "the test needs a token that merges line breaks"
    encoded = encode_messages(chatml, CHAT)
    assert encoded.input_ids != chatml.encode(text)
    prompt = chatml.render(CHAT[:4], add_generation_prompt=True)
    assert encoded.input_ids[: len(chatml.encode(prompt))] == chatml.encode(prompt)
    assert chatml.decode(encoded.input_ids) == text


def test_a_straddling_token_that_cannot_be_split_is_not_trained_and_counted(marked_tokenizer_folder: Path) -> None:
    tokenizer = ChatTokenizer.from_folder(marked_tokenizer_folder, template="chatml")
    encoded = encode_messages(tokenizer, (Message("user", "no"), Message("assistant", "yes")))
    assert encoded.straddling == 1
    assert encoded.input_ids == tokenizer.encode(tokenizer.render((Message("user", "no"), Message("assistant", "yes"))))
    assert _spans(tokenizer, encoded) == [IM_END]


def test_train_on_all_trains_up_to_the_last_end_token(chatml: ChatTokenizer) -> None:
    encoded = encode_messages(chatml, CHAT[1:3], train_on="all")
    # Nothing predicts the first token, and nothing needs the line break after the end.
    assert encoded.labels == [IGNORED, *encoded.input_ids[1:11], IGNORED]
    assert encoded.trained_tokens == 10


def test_truncation_cuts_ids_and_labels_alike(chatml: ChatTokenizer) -> None:
    whole = encode_messages(chatml, CHAT)
    cut = encode_messages(chatml, CHAT, max_length=15)
    assert cut == Encoded(whole.input_ids[:15], whole.labels[:15], truncated=True)
    exact = encode_messages(chatml, CHAT, max_length=len(whole.input_ids))
    assert exact == whole


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(
    lambda text: text.strip() and "<|" not in text
)


@st.composite
def _conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    messages = [Message("system", draw(_TEXT))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages += [Message("user", draw(_TEXT)), Message("assistant", draw(_TEXT))]
    return tuple(messages)


def _check_spans(tokenizer: ChatTokenizer, messages: tuple[Message, ...]) -> None:
    encoded = encode_messages(tokenizer, messages)
    answers = [message.content for message in messages if message.role == "assistant"]
    assert _spans(tokenizer, encoded) == [f"{answer}{IM_END}" for answer in answers]
    assert tokenizer.decode(encoded.input_ids) == tokenizer.render(messages)
    assert encoded.straddling == 0


@given(_conversations())
@settings(deadline=None, max_examples=60)
def test_trained_spans_are_the_assistants_turns(chatml: ChatTokenizer, messages: tuple[Message, ...]) -> None:
    _check_spans(chatml, messages)


@given(messages=_conversations())
@settings(deadline=None, max_examples=60)
def test_trained_spans_with_a_real_tokenizer(real: ChatTokenizer, messages: tuple[Message, ...]) -> None:
    _check_spans(real, messages)


INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'system' %}{{ raise_exception('No ' + m['role'] + ' here: ' + m['content']) }}"
    "{% else %} {{ m['content'] | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)


def test_a_template_without_generation_prompt(with_template: WithTemplate) -> None:
    tokenizer = ChatTokenizer.from_folder(with_template(INST))
    encoded = encode_messages(tokenizer, CHAT[1:])
    # The blank before the answer belongs to it: the model must write it, for no prompt holds it.
    assert _spans(tokenizer, encoded) == [" blue<|endoftext|>", " stones<|endoftext|>"]


def test_a_blank_before_the_answer_belongs_to_the_prompt_that_has_it(with_template: WithTemplate) -> None:
    tokenizer = ChatTokenizer.from_folder(
        with_template(
            "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}"
        )
    )
    assert len(tokenizer.encode(" blue")) == 1, "the test needs a token that holds the blank before the word"
    assert _spans(tokenizer, encode_messages(tokenizer, CHAT[1:3])) == ["blue<|endoftext|>"]


def test_a_row_that_the_template_refuses_is_named_without_its_text(with_template: WithTemplate) -> None:
    tokenizer = ChatTokenizer.from_folder(with_template(INST))
    good = Row(CHAT[1:3], file="f", line=1)
    bad = Row(CHAT, file="f", line=2, index=1)
    encoded = encode_rows(tokenizer, [good, bad, bad])
    assert next(encoded)[0] == good
    with pytest.raises(DataError) as caught:
        list(encoded)
    line = (
        "f:2: [1].messages: the chat template refuses the conversation: an error whose text quotes the row;"
        " change the row, or set data.template: chatml"
    )
    assert str(caught.value).splitlines() == [line, line]


def test_a_template_that_rewrites_earlier_turns_is_refused(with_template: WithTemplate) -> None:
    tokenizer = ChatTokenizer.from_folder(
        with_template(
            "{% for m in messages %}{% if loop.last or m['role'] != 'assistant' %}{{ m['content'] }}"
            "{{ eos_token }}{% endif %}{% endfor %}"
        )
    )
    with pytest.raises(ConfigurationError) as caught:
        list(encode_rows(tokenizer, [Row(CHAT, file="f", line=3)]))
    assert str(caught.value) == (
        "f:3: data.template: the chat template rewrites earlier turns: the text up to message 2 is no beginning of"
        " the whole text; set data.template: chatml"
    )


@pytest.mark.parametrize("train_on", ["assistant", "all"])
@pytest.mark.parametrize("before", ["", "{{ eos_token }}"])
def test_a_turn_without_an_end_token_is_refused(with_template: WithTemplate, before: str, train_on: str) -> None:
    template = (
        "{% for m in messages %}" + before + "{{ m['content'] }}"
        "{% if messages[0]['content'] != 'count' %}{{ eos_token }}{% endif %}{% endfor %}"
    )
    tokenizer = ChatTokenizer.from_folder(with_template(template))
    with pytest.raises(ConfigurationError, match=r"^f:3: data\.template: .* without an end token"):
        list(encode_rows(tokenizer, [Row(CHAT, file="f", line=3)], train_on=train_on))  # type: ignore[arg-type]


def test_a_control_token_in_a_text_is_refused(chatml: ChatTokenizer) -> None:
    row = Row((Message("user", "a"), Message("assistant", f"b{IM_END}c")), file="f", line=4)
    with pytest.raises(DataError) as caught:
        list(encode_rows(chatml, [row]))
    assert str(caught.value) == (
        "f:4: messages.1.content: contains the tokenizer's control token <|im_end|>; remove it or spell it otherwise"
    )


def test_order_survives_batches(chatml: ChatTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sftjob.data.masks.BATCH_ROWS", 2)
    rows = [Row((Message("user", "a"), Message("assistant", str(line))), file="f", line=line) for line in range(5)]
    encoded = list(encode_rows(chatml, iter(rows)))
    assert [row for row, _ in encoded] == rows
    assert [_spans(chatml, item) for _, item in encoded] == [[f"{line}<|im_end|>"] for line in range(5)]


def _spans(tokenizer: ChatTokenizer, encoded: Encoded) -> list[str]:
    """Runs of trained tokens, decoded; every label that is not ignored must be its own token."""
    spans: list[list[int]] = []
    before = IGNORED
    for id, label in zip(encoded.input_ids, encoded.labels, strict=True):
        assert label in (IGNORED, id)
        if label != IGNORED:
            if before == IGNORED:
                spans.append([])
            spans[-1].append(label)
        before = label
    return [tokenizer.decode(span) for span in spans]
