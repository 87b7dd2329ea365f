"""Chat templates: what they see, and what ours writes."""

import hashlib
import json

import pytest

from sftjob.data import Message
from sftjob.data.messages import Tool, ToolCall
from sftjob.data.template import CHATML, CHATML_WITH_BOS, ChatTemplate, TemplateRefusal

ADD: Tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALLS = (
    Message("system", "Count."),
    Message("user", "1 + 2, 3 + 4?"),
    Message("assistant", "Wait.", tool_calls=(ToolCall("add", {"a": 1, "b": 2}, id="1"), ToolCall("add", {"é": "<"}))),
    Message("tool", "3", name="add", tool_call_id="1"),
    Message("assistant", "3", reasoning_content="So it is."),
)


def test_chatml_with_tools_and_thoughts() -> None:
    assert ChatTemplate(CHATML, {}).render(CALLS, tools=(ADD, ADD)) == (
        "<|im_start|>system\nCount.\n\nYou may call these functions:\n<tools>\n"
        + f"{json.dumps(ADD)}\n{json.dumps(ADD)}\n</tools>\n"
        + "For each call, write its name and its arguments as JSON:\n<tool_call>\n"
        + '{"name": "...", "arguments": {...}}\n</tool_call><|im_end|>\n'
        + "<|im_start|>user\n1 + 2, 3 + 4?<|im_end|>\n"
        + "<|im_start|>assistant\nWait.\n<tool_call>\n"
        + '{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>\n<tool_call>\n'
        + '{"name": "add", "arguments": {"é": "<"}}\n</tool_call><|im_end|>\n'
        + "<|im_start|>tool\n<tool_response>\n3\n</tool_response><|im_end|>\n"
        + "<|im_start|>assistant\n<think>\nSo it is.\n</think>\n\n3<|im_end|>\n"
    )


def test_chatml_with_tools_and_no_system_message() -> None:
    text = ChatTemplate(CHATML_WITH_BOS, {"bos_token": "<s>"}).render(
        CALLS[1:2], tools=(ADD,), add_generation_prompt=True
    )
    assert text.startswith("<s><|im_start|>system\nYou may call these functions:\n<tools>\n{")
    assert text.endswith("</tool_call><|im_end|>\n<|im_start|>user\n1 + 2, 3 + 4?<|im_end|>\n<|im_start|>assistant\n")


def test_chatml_without_them_is_what_it_always_was() -> None:
    chat = (Message("system", " a\n"), Message("user", "b"), Message("assistant", "\n<c>"), Message("user", ""))
    text = "".join(f"<|im_start|>{message.role}\n{message.content}<|im_end|>\n" for message in chat)
    assert ChatTemplate(CHATML, {}).render(chat) == text
    assert ChatTemplate(CHATML, {}).render(chat, add_generation_prompt=True) == f"{text}<|im_start|>assistant\n"
    assert ChatTemplate(CHATML_WITH_BOS, {"bos_token": "<s>"}).render(chat) == f"<s>{text}"
    assert ChatTemplate(CHATML, {}).render(()) == ""


def test_templates_see_the_shape_of_transformers_and_no_flags() -> None:
    template = ChatTemplate("{{ messages | tojson }}{{ tools | tojson }}", {})
    chat = (Message("user", "a", train=True), Message("assistant", "", tool_calls=(ToolCall("f", {"x": 1}, id="7"),)))
    function = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}, "id": "7"}
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [function]}]
    assert template.render(chat, tools=(ADD,)) == json.dumps(messages) + json.dumps([ADD])
    assert template.render(chat) == json.dumps(messages) + "null"


@pytest.mark.parametrize(
    "quoted",
    [
        "messages[0]['content']",
        "messages[1]['reasoning_content']",
        "messages[1]['tool_calls'][0]['function']['arguments']['city']",
        "tools[0]['function']['description']",
    ],
)
def test_a_refusal_hides_all_of_the_row(quoted: str) -> None:
    template = ChatTemplate(f"{{{{ raise_exception('No ' + messages[0]['role'] + {quoted}) }}}}", {})
    call = ToolCall("f", {"city": "in Cologne"})
    chat = (
        Message("user", "a secret"),
        Message("assistant", "b", tool_calls=(call,), reasoning_content="think of it"),
    )
    tool = {"type": "function", "function": {"name": "f", "description": "tells it"}}
    with pytest.raises(TemplateRefusal, match=r"^an error whose text quotes the row$"):
        template.render(chat, tools=(tool,))


def test_a_refusal_may_name_roles() -> None:
    template = ChatTemplate("{{ raise_exception('No role ' + messages[0]['role']) }}", {})
    with pytest.raises(TemplateRefusal, match=r"^No role system$"):
        template.render((Message("system", "a secret"),))


def test_the_hash_is_that_of_the_source() -> None:
    assert ChatTemplate("é", {}).sha256 == hashlib.sha256("é".encode()).hexdigest()
