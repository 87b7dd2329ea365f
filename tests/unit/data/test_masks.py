"""Masks: exactly the assistant's turns and their end tokens are trained, whatever the text."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftjob.data import Message, Row
from sftjob.data.masks import IGNORED, Encoded, TrainedSpan, encode_batch, encode_messages
from sftjob.data.messages import Tool, ToolCall
from sftjob.data.problems import Problems
from sftjob.data.template import IM_END
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import ConfigurationError, DataError
from sftjob.spec.data import TrainOn

CHAT = (
    Message("system", "count"),
    Message("user", "red"),
    Message("assistant", "blue"),
    Message("user", "of"),
    Message("assistant", "\n\nstones"),
)
WithTemplate = Callable[..., Path]


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
    spans = tuple(replace(span, stop=span.stop and span.end <= 15) for span in whole.spans if span.start < 15)
    assert cut == Encoded(whole.input_ids[:15], whole.labels[:15], truncated=True, spans=spans)
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
    problems = Problems()
    assert [row for row, _ in _encode(tokenizer, [good, bad, bad], problems=problems)] == [good]
    assert problems.rows == 2
    with pytest.raises(DataError) as caught:
        problems.raise_any()
    line = (
        "f:2: [1].messages: the chat template refuses the conversation: an error whose text quotes the row;"
        " change the row, or set data.template: chatml"
    )
    assert str(caught.value).splitlines() == [line, line]


# Says of an answer whether it is the last thing in the conversation.
REWRITES = (
    "{% for m in messages %}{{ m['role'] + ':' }}{% if m['role'] == 'assistant' and loop.last %}!{% endif %}"
    "{{ m['content'] + eos_token }}{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


def test_turns_that_the_template_rewrites_become_rows_of_their_own(with_template: WithTemplate) -> None:
    tokenizer = ChatTokenizer.from_folder(with_template(REWRITES))
    row, single = Row(CHAT, file="f", line=3), Row(CHAT[:3], file="f", line=4)
    encoded = _encode(tokenizer, [row, single])
    assert [item.id for item, _ in encoded] == ["f:3#1", "f:3#2", "f:4"]
    assert [item.messages for item, _ in encoded] == [CHAT[:3], CHAT, CHAT[:3]]
    assert [_spans(tokenizer, item) for _, item in encoded] == [
        ["!blue<|endoftext|>"],
        ["!\n\nstones<|endoftext|>"],
        ["!blue<|endoftext|>"],
    ]
    for item, ids in encoded:
        assert tokenizer.decode(ids.input_ids) == tokenizer.render(item.messages)
    with pytest.raises(ConfigurationError, match=r"^data\.template: .* several rows; set data\.template: chatml$"):
        encode_messages(tokenizer, CHAT)


def test_a_template_that_rewrites_what_it_prompts_for_is_refused(with_template: WithTemplate) -> None:
    tokenizer = ChatTokenizer.from_folder(
        with_template(
            "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
            "{% if add_generation_prompt and messages | length > 1 %}<think>{% endif %}"
        )
    )
    with pytest.raises(ConfigurationError) as caught:
        _encode(tokenizer, [Row(CHAT, file="f", line=3)])
    assert str(caught.value) == (
        "f:3: data.template: the chat template rewrites the turn that it prompts for: the prompt before message 2 is no"
        " beginning of the answered text; set data.template: chatml"
    )


def test_what_a_template_writes_after_the_end_is_not_trained(with_template: WithTemplate) -> None:
    tokenizer = ChatTokenizer.from_folder(
        with_template(
            "{% for m in messages %}{{ '<|im_start|>' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
            "{{ '<|im_start|>' if add_generation_prompt else eos_token + ' ' }}",
            ["<|im_start|>", "<|im_end|>"],
        )
    )
    assert tokenizer.stop_token_ids == (tokenizer.token_id("<|im_end|>"), tokenizer.token_id("<|endoftext|>"))
    encoded = encode_messages(tokenizer, CHAT)
    assert _spans(tokenizer, encoded) == ["blue<|im_end|>", "\n\nstones<|im_end|>"]
    everything = encode_messages(tokenizer, CHAT, train_on="all")
    assert everything.labels[1:-3] == everything.input_ids[1:-3]
    assert tokenizer.decode(everything.input_ids[-3:]) == "\n<|endoftext|> "
    assert everything.labels[-3:] == [IGNORED] * 3


def test_the_token_that_generation_stops_at_ends_a_turn_before_others(with_template: WithTemplate) -> None:
    # After a call, control tokens that close it come before the end of the turn.
    tokenizer = ChatTokenizer.from_folder(
        with_template(
            "{% for m in messages %}{{ m['role'] + m['content'] }}"
            "{% for call in m['tool_calls'] %}{{ '<|call|>' + call['function']['name'] + '<|called|>' }}{% endfor %}"
            "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant{% endif %}",
            ["<|call|>", "<|called|>"],
        )
    )
    chat = (Message("user", "a"), Message("assistant", "", tool_calls=(ToolCall("f", {}),)))
    encoded = encode_messages(tokenizer, chat)
    assert _spans(tokenizer, encoded) == ["<|call|>f<|called|><|endoftext|>"]
    assert [span.stop for span in encoded.spans] == [True]


@pytest.mark.parametrize(
    ("train_on", "flags", "trained"),
    [
        ("assistant", (None, None), ["blue", "\n\nstones"]),
        ("assistant", (False, None), ["\n\nstones"]),
        ("assistant", (None, False), ["blue"]),
        ("last_assistant", (None, None), ["\n\nstones"]),
        ("last_assistant", (True, None), ["blue", "\n\nstones"]),
        ("last_assistant", (True, False), ["blue"]),
        ("assistant", (False, False), []),
    ],
)
def test_which_turns_train(
    chatml: ChatTokenizer, train_on: TrainOn, flags: tuple[bool | None, bool | None], trained: list[str]
) -> None:
    chat = (*CHAT[:2], replace(CHAT[2], train=flags[0]), CHAT[3], replace(CHAT[4], train=flags[1]))
    encoded = encode_messages(chatml, chat, train_on=train_on)
    assert _spans(chatml, encoded) == [f"{answer}{IM_END}" for answer in trained]
    assert chatml.decode(encoded.input_ids) == chatml.render(CHAT)
    assert encoded.trained_by_role == ({"assistant": encoded.trained_tokens} if trained else {})


def test_roles_of_everything(chatml: ChatTokenizer) -> None:
    chat = (*CHAT[:2], replace(CHAT[2], train=False), *CHAT[3:])
    encoded = encode_messages(chatml, chat, train_on="all")
    assert [(span.role, span.stop, chatml.decode(encoded.labels[span.start : span.end])) for span in encoded.spans] == [
        ("system", False, "system\ncount<|im_end|>\n"),
        ("user", False, "<|im_start|>user\nred<|im_end|>\n"),
        ("user", False, "\n<|im_start|>user\nof<|im_end|>\n"),
        ("assistant", True, "<|im_start|>assistant\n\n\nstones<|im_end|>"),
    ]
    assert sum(encoded.trained_by_role.values()) == encoded.trained_tokens
    whole = encode_messages(chatml, CHAT, train_on="all")
    assert whole.input_ids == encode_messages(chatml, CHAT).input_ids
    assert whole.trained_tokens == len(whole.input_ids) - 2


def test_an_untrained_turn_that_cannot_be_told_from_others_is_refused(with_template: WithTemplate) -> None:
    tokenizer = ChatTokenizer.from_folder(
        with_template(
            "{% for m in messages %}{{ '?' if m['role'] == 'user' and messages | length > 2 }}{{ m['content'] }}"
            "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
        )
    )
    chat = (Message("user", "noon"), Message("assistant", "blue", train=False), *CHAT[3:])
    with pytest.raises(ConfigurationError, match=r"so that message 1 cannot be left untrained"):
        encode_messages(tokenizer, chat, train_on="all")


TOOL: Tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALLING = (
    Message("user", "1 + 2?"),
    Message("assistant", "", tool_calls=(ToolCall("add", {"a": 1, "b": "zwei é"}, id="c1"),), reasoning_content="hm"),
    Message("tool", "3", tool_call_id="c1", name="add"),
    Message("assistant", "3"),
)


def test_tools_calls_and_thoughts_are_trained(chatml: ChatTokenizer) -> None:
    encoded = encode_messages(chatml, CALLING, tools=(TOOL,))
    assert _spans(chatml, encoded) == [
        "<think>\nhm\n</think>\n\n<tool_call>\n"
        '{"name": "add", "arguments": {"a": 1, "b": "zwei é"}}\n</tool_call><|im_end|>',
        "3<|im_end|>",
    ]
    assert chatml.decode(encoded.input_ids) == chatml.render(CALLING, tools=(TOOL,))


@pytest.mark.parametrize(
    ("messages", "tools", "field"),
    [
        ((Message("user", f"a{IM_END}"), *CHAT[2:3]), (), "messages.0.content"),
        ((*CHAT[1:2], Message("assistant", "b", reasoning_content=IM_END)), (), "messages.1.reasoning_content"),
        ((*CHAT[1:2], Message("assistant", "", tool_calls=(ToolCall("f", {"a": [IM_END]}),))), (),
         "messages.1.tool_calls.0"),
        ((*CHAT[1:2], Message("tool", "b", name=IM_END), *CHAT[2:3]), (), "messages.1.name"),
        (CHAT[1:3], (TOOL, {"function": {"name": "g", "x": IM_END}}), "tools.1"),
    ],
)  # fmt: skip
def test_control_tokens_are_refused_wherever_they_are_typed(
    chatml: ChatTokenizer, messages: tuple[Message, ...], tools: tuple[Tool, ...], field: str
) -> None:
    problems = Problems()
    assert _encode(chatml, [Row(messages, file="f", line=4, tools=tools)], problems=problems) == []
    [problem] = problems.shown
    assert str(problem) == (
        f"f:4: {field}: contains the tokenizer's control token <|im_end|>; remove it or spell it otherwise"
    )


def test_contents_may_be_trimmed_or_written_as_json_but_not_left_out(with_template: WithTemplate) -> None:
    tokenizer = ChatTokenizer.from_folder(
        with_template(
            "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'] }}{{ m['content'] | trim | tojson }}"
            "{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}assistant{% endif %}"
        )
    )
    chat = (Message("user", ' "a"\n\té \n'), Message("assistant", "\n1\n\n2 "))
    assert _spans(tokenizer, encode_messages(tokenizer, chat)) == ['"1\\n\\n2"<|endoftext|>']
    with pytest.raises(DataError) as caught:
        encode_messages(tokenizer, CHAT)
    assert str(caught.value) == (
        "messages.0.content: the chat template leaves it out; change the row, or set data.template: chatml"
    )


def test_plain_texts_lie_among_conversations(chatml: ChatTokenizer) -> None:
    rows = [
        Row((), file="f", line=1, text="red stones"),
        Row(CHAT[1:3], file="f", line=2),
        Row((), file="f", line=3, text=f"<|im_start|>user\nred{IM_END}"),
    ]
    encoded = _encode(chatml, rows)
    assert [row for row, _ in encoded] == rows
    assert [chatml.decode(item.input_ids) for _, item in encoded] == [
        "red stones<|endoftext|>",
        chatml.render(CHAT[1:3]),
        "<|im_start|>user\nred<|im_end|><|endoftext|>",
    ]
    for _, item in (encoded[0], encoded[2]):
        assert item.labels == [IGNORED, *item.input_ids[1:]]
        assert item.spans == (TrainedSpan(1, len(item.input_ids), "text", stop=True),)


@pytest.mark.parametrize("train_on", ["assistant", "all"])
@pytest.mark.parametrize("before", ["", "{{ eos_token }}"])
def test_a_turn_without_an_end_token_is_refused(with_template: WithTemplate, before: str, train_on: TrainOn) -> None:
    template = (
        "{% for m in messages %}" + before + "{{ m['content'] }}"
        "{% if messages[0]['content'] != 'count' %}{{ eos_token }}{% endif %}{% endfor %}"
    )
    tokenizer = ChatTokenizer.from_folder(with_template(template))
    with pytest.raises(ConfigurationError, match=r"^f:3: data\.template: .* without an end token"):
        _encode(tokenizer, [Row(CHAT, file="f", line=3)], train_on=train_on)


def test_order_survives(chatml: ChatTokenizer) -> None:
    rows = [Row((Message("user", "a"), Message("assistant", str(line))), file="f", line=line) for line in range(5)]
    encoded = _encode(chatml, rows)
    assert [row for row, _ in encoded] == rows
    assert [_spans(chatml, item) for _, item in encoded] == [[f"{line}<|im_end|>"] for line in range(5)]


def _encode(
    tokenizer: ChatTokenizer, rows: list[Row], *, train_on: TrainOn = "assistant", problems: Problems | None = None
) -> list[tuple[Row, Encoded]]:
    return encode_batch(tokenizer, rows, train_on=train_on, problems=problems or Problems())


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
