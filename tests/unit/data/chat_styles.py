# ruff: noqa: RUF001 - DeepSeek's tokens have wide bars
"""Prompt formats of real models, written out by hand: neither their templates nor `sftjob` has a say in it.

Each function gives the pieces of a conversation's text, in order, from the format's documentation. `answer` marks what
the model itself has to write: an answer with the token that ends it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

Chat = list[dict[str, Any]]
Tools = list[dict[str, Any]]
Kind = Literal["bytes", "metaspace", "sentencepiece"]


@dataclass(frozen=True)
class Piece:
    """A part of a rendered text."""

    text: str
    of: int
    """Position of the message that it belongs to."""
    answer: bool = False


Write = Callable[[Chat, Tools], list[Piece]]


@dataclass(frozen=True)
class Style:
    """One prompt format, and what it can show."""

    name: str
    write: Write
    tokens: tuple[str, ...]
    """Control tokens, in the order of their ids."""
    stop: str
    """Ends an answer."""
    eos: str
    bos: str = ""
    kind: Kind = "bytes"
    system: bool = True
    tools: bool = False
    thoughts: bool = False
    plain_tokens: tuple[str, ...] = ()
    """Added to the vocabulary, but no control tokens."""
    rewrites: Callable[[Chat, Tools], bool] = lambda _chat, _tools: False
    """Whether earlier turns look otherwise than when they were answered."""


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def call_of(call: dict[str, Any], arguments: str) -> str:
    function = call["function"]
    return f'{{"name": "{function["name"]}", "{arguments}": {dumps(function["arguments"])}}}'


def llama2(chat: Chat, _tools: Tools) -> list[Piece]:
    pieces, preface = [], ""
    for at, turn in enumerate(chat):
        if turn["role"] == "system":
            preface = f"<<SYS>>\n{turn['content']}\n<</SYS>>\n\n"
        elif turn["role"] == "user":
            asked = (preface + turn["content"]).strip()
            pieces.append(Piece(f"<s>[INST] {asked} [/INST]", at))
            preface = ""
        else:
            pieces.append(Piece(f" {turn['content'].strip()} </s>", at, answer=True))
    return pieces


def llama3(chat: Chat, _tools: Tools) -> list[Piece]:
    pieces = [Piece("<|begin_of_text|>", 0)]
    for at, turn in enumerate(chat):
        pieces.append(Piece(f"<|start_header_id|>{turn['role']}<|end_header_id|>\n\n", at))
        pieces.append(Piece(f"{turn['content'].strip()}<|eot_id|>", at, answer=turn["role"] == "assistant"))
    return pieces


def llama3_1(chat: Chat, tools: Tools) -> list[Piece]:
    named = chat[0]["role"] == "system"
    head = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    head += "Environment: ipython\n" if tools else ""
    head += "Cutting Knowledge Date: December 2023\n\n"
    pieces = [Piece(head + (chat[0]["content"].strip() if named else "") + "<|eot_id|>", 0)]
    for at, turn in enumerate(chat):
        if turn["role"] == "system":
            continue
        role = {"tool": "ipython"}.get(turn["role"], turn["role"])
        pieces.append(Piece(f"<|start_header_id|>{role}<|end_header_id|>\n\n", at))
        if tools and at == int(named):
            pieces.append(Piece("Answer with a JSON call of one of these functions.\n\n", at))
            pieces += [Piece(json.dumps(tool, indent=4, ensure_ascii=False) + "\n\n", at) for tool in tools]
        text = turn["content"].strip()
        if turn["role"] == "tool":
            text = dumps(turn["content"])
        elif turn.get("tool_calls"):
            text = call_of(turn["tool_calls"][0], "parameters")
        pieces.append(Piece(f"{text}<|eot_id|>", at, answer=turn["role"] == "assistant"))
    return pieces


def mistral_v1(chat: Chat, _tools: Tools) -> list[Piece]:
    pieces = [Piece("<s>", 0)]
    for at, turn in enumerate(chat):
        if turn["role"] == "user":
            pieces.append(Piece(f"[INST] {turn['content']} [/INST]", at))
        else:
            pieces.append(Piece(f" {turn['content']}</s>", at, answer=True))
    return pieces


def mistral_v3(chat: Chat, tools: Tools) -> list[Piece]:
    last = max(at for at, turn in enumerate(chat) if turn["role"] == "user")
    pieces, preface = [Piece("<s>", 0)], ""
    for at, turn in enumerate(chat):
        if turn["role"] == "system":
            preface = turn["content"] + "\n\n"
        elif turn["role"] == "user":
            if tools and at == last:
                pieces.append(Piece(f"[AVAILABLE_TOOLS]{dumps(tools)}[/AVAILABLE_TOOLS]", at))
            pieces.append(Piece(f"[INST]{preface if at == last else ''}{turn['content']}[/INST]", at))
        elif turn["role"] == "tool":
            result = dumps({"content": turn["content"], "call_id": turn["tool_call_id"]})
            pieces.append(Piece(f"[TOOL_RESULTS]{result}[/TOOL_RESULTS]", at))
        elif turn.get("tool_calls"):
            calls = [{**call["function"], "id": call["id"]} for call in turn["tool_calls"]]
            pieces.append(Piece(f"[TOOL_CALLS]{dumps(calls)}</s>", at, answer=True))
        else:
            pieces.append(Piece(f"{turn['content']}</s>", at, answer=True))
    return pieces


def moves_the_preface(chat: Chat, tools: Tools) -> bool:
    return sum(turn["role"] == "user" for turn in chat) > 1 and bool(tools or chat[0]["role"] == "system")


def qwen2_5(chat: Chat, tools: Tools) -> list[Piece]:
    system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    system = chat[0]["content"] if chat[0]["role"] == "system" else system
    if tools:
        system += "\n\n# Tools\n\n<tools>" + "".join("\n" + dumps(tool) for tool in tools) + "\n</tools>"
    pieces = [Piece(f"<|im_start|>system\n{system}<|im_end|>\n", 0)]
    for at, turn in enumerate(chat):
        before = chat[at - 1]["role"] if at else ""
        after = chat[at + 1]["role"] if at + 1 < len(chat) else ""
        if turn["role"] == "tool":
            text = "" if before == "tool" else "<|im_start|>user"
            text += f"\n<tool_response>\n{turn['content']}\n</tool_response>"
            pieces.append(Piece(text + ("" if after == "tool" else "<|im_end|>\n"), at))
        elif turn["role"] == "assistant":
            pieces.append(Piece("<|im_start|>assistant\n", at))
            pieces.append(Piece(hermes_answer(turn) + "<|im_end|>", at, answer=True))
            pieces.append(Piece("\n", at + 1))
        elif turn["role"] == "user":
            pieces.append(Piece(f"<|im_start|>user\n{turn['content']}<|im_end|>\n", at))
    return pieces


def hermes_answer(turn: dict[str, Any]) -> str:
    calls = [f"<tool_call>\n{call_of(call, 'arguments')}\n</tool_call>" for call in turn.get("tool_calls", ())]
    return "\n".join([*([turn["content"]] if turn["content"] else []), *calls])


def qwen3(chat: Chat, tools: Tools) -> list[Piece]:
    asked = max(at for at, turn in enumerate(chat) if turn["role"] == "user")
    system = chat[0]["content"] if chat[0]["role"] == "system" else None
    if tools:
        listed = "# Tools\n\n<tools>" + "".join("\n" + dumps(tool) for tool in tools) + "\n</tools>"
        system = f"{system}\n\n{listed}" if system is not None else listed
    pieces = [Piece(f"<|im_start|>system\n{system}<|im_end|>\n", 0)] if system is not None else []
    for at, turn in enumerate(chat):
        if turn["role"] == "tool":
            text = f"<|im_start|>user\n<tool_response>\n{turn['content']}\n</tool_response><|im_end|>\n"
            pieces.append(Piece(text, at))
        elif turn["role"] == "user":
            pieces.append(Piece(f"<|im_start|>user\n{turn['content']}<|im_end|>\n", at))
        elif turn["role"] == "assistant":
            thoughts, answer = turn.get("reasoning_content", ""), hermes_answer(turn)
            if at > asked and (thoughts or at == len(chat) - 1):
                answer = "<think>\n" + thoughts.strip("\n") + "\n</think>\n\n" + answer.lstrip("\n")
            pieces.append(Piece("<|im_start|>assistant\n", at))
            pieces.append(Piece(f"{answer}<|im_end|>", at, answer=True))
            pieces.append(Piece("\n", at + 1))
    return pieces


def forgets_thoughts(chat: Chat, _tools: Tools) -> bool:
    return sum(turn["role"] == "assistant" for turn in chat) > 1


def gemma(chat: Chat, _tools: Tools) -> list[Piece]:
    pieces, preface = [Piece("<bos>", 0)], ""
    for at, turn in enumerate(chat):
        if turn["role"] == "system":
            preface = turn["content"] + "\n\n"
            continue
        answer = turn["role"] == "assistant"
        pieces.append(Piece(f"<start_of_turn>{'model' if answer else 'user'}\n", at))
        pieces.append(Piece(f"{preface}{turn['content'].strip()}<end_of_turn>", at, answer=answer))
        pieces.append(Piece("\n", at + 1 if answer else at))
        preface = ""
    return pieces


def marked(before: str, end: str, after: str = "") -> Write:
    """Formats that write every turn in the same way; `before` has a place for the role."""

    def write(chat: Chat, _tools: Tools) -> list[Piece]:
        pieces = []
        for at, turn in enumerate(chat):
            answer = turn["role"] == "assistant"
            pieces.append(Piece(before.format(turn["role"]), at))
            pieces.append(Piece(turn["content"] + end, at, answer=answer))
            pieces.append(Piece(after, at + 1 if answer else at))
        return pieces

    return write


def phi3(chat: Chat, tools: Tools) -> list[Piece]:
    return [*marked("<|{}|>\n", "<|end|>", "\n")(chat, tools), Piece("<|endoftext|>", len(chat))]


def tulu(chat: Chat, _tools: Tools) -> list[Piece]:
    pieces = []
    for at, turn in enumerate(chat):
        pieces.append(Piece(f"<|{turn['role']}|>\n", at))
        if turn["role"] == "assistant":
            pieces.append(Piece(turn["content"] + "<|endoftext|>", at, answer=True))
            pieces.append(Piece("\n" if at + 1 < len(chat) else "", at + 1))
        else:
            pieces.append(Piece(turn["content"] + "\n", at))
    return pieces


def command_r(chat: Chat, _tools: Tools) -> list[Piece]:
    pieces = [Piece("<BOS_TOKEN>", 0)]
    for at, turn in enumerate(chat):
        kind = {"system": "SYSTEM", "user": "USER", "assistant": "CHATBOT"}[turn["role"]]
        pieces.append(Piece(f"<|START_OF_TURN_TOKEN|><|{kind}_TOKEN|>", at))
        pieces.append(Piece(f"{turn['content'].strip()}<|END_OF_TURN_TOKEN|>", at, answer=kind == "CHATBOT"))
    return pieces


def deepseek_v2(chat: Chat, _tools: Tools) -> list[Piece]:
    pieces = [Piece("<｜begin▁of▁sentence｜>", 0)]
    for at, turn in enumerate(chat):
        if turn["role"] == "assistant":
            pieces.append(Piece("Assistant:", at))
            pieces.append(Piece(f" {turn['content']}<｜end▁of▁sentence｜>", at, answer=True))
        else:
            pieces.append(Piece(f"{'User: ' if turn['role'] == 'user' else ''}{turn['content']}\n\n", at))
    return pieces


def deepseek_v3(chat: Chat, _tools: Tools) -> list[Piece]:
    pieces, before = [Piece("<｜begin▁of▁sentence｜>", 0)], ""
    for at, turn in enumerate(chat):
        content = turn["content"]
        if turn["role"] == "user":
            content = "<｜User｜>" + content
        elif turn["role"] == "tool":
            content = f"<｜tool▁output▁begin｜>{content}<｜tool▁output▁end｜>"
        elif turn["role"] == "assistant":
            pieces.append(Piece("" if before == "tool" else "<｜Assistant｜>", at))
            calls = [
                f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call['function']['name']}\n```json\n"
                f"{dumps(call['function']['arguments'])}\n```<｜tool▁call▁end｜>"
                for call in turn.get("tool_calls", ())
            ]
            content += f"<｜tool▁calls▁begin｜>{''.join(calls)}<｜tool▁calls▁end｜>" if calls else ""
            content += "<｜end▁of▁sentence｜>"
        pieces.append(Piece(content, at, answer=turn["role"] == "assistant"))
        before = turn["role"]
    return pieces


def granite(chat: Chat, tools: Tools) -> list[Piece]:
    named = chat[0]["role"] == "system"
    system = chat[0]["content"] if named else "You are Granite, developed by IBM."
    pieces = [Piece(f"<|start_of_role|>system<|end_of_role|>{system}<|end_of_text|>\n", 0)]
    if tools:
        pieces.append(Piece(f"<|start_of_role|>tools<|end_of_role|>{dumps(tools)}<|end_of_text|>\n", 0))
    for at, turn in enumerate(chat):
        if turn["role"] == "system":
            continue
        answer, content = turn["role"] == "assistant", turn["content"]
        role = "tool_response" if turn["role"] == "tool" else turn["role"]
        if turn.get("tool_calls"):
            content = "<|tool_call|>" + dumps([call["function"] for call in turn["tool_calls"]])
        pieces.append(Piece(f"<|start_of_role|>{role}<|end_of_role|>", at))
        pieces.append(Piece(f"{content}<|end_of_text|>", at, answer=answer))
        pieces.append(Piece("\n", at + 1 if answer else at))
    return pieces


def smollm2(chat: Chat, tools: Tools) -> list[Piece]:
    pieces = marked("<|im_start|>{}\n", "<|im_end|>", "\n")(chat, tools)
    if chat[0]["role"] != "system":
        default = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
        pieces.insert(0, Piece(f"<|im_start|>system\n{default}<|im_end|>\n", 0))
    return pieces


_CHATML: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA3: Final = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_MISTRAL: Final = (
    "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
)  # fmt: skip
_HERMES: Final = ("<tool_call>", "</tool_call>", "<think>", "</think>")
_DEEPSEEK: Final = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
_DEEPSEEK_TOOLS: Final = (
    "<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>",
)  # fmt: skip
_GRANITE: Final = ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|tool_call|>")
_COMMAND_R: Final = (
    "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
)  # fmt: skip
_GEMMA: Final = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
_PHI3: Final = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_PHI4: Final = "<|im_start|>{}<|im_sep|>"
_TURN: Final = "<|im_start|>{}\n"

STYLES: Final = (
    Style("llama2", llama2, ("<s>", "</s>"), "</s>", "</s>", "<s>", kind="metaspace"),
    Style("llama3", llama3, _LLAMA3, "<|eot_id|>", "<|end_of_text|>", "<|begin_of_text|>"),
    Style("llama3_1", llama3_1, _LLAMA3, "<|eot_id|>", "<|eot_id|>", "<|begin_of_text|>", tools=True),
    Style("mistral_v1", mistral_v1, ("<s>", "</s>"), "</s>", "</s>", "<s>", kind="metaspace", system=False),
    Style("mistral_v3", mistral_v3, _MISTRAL, "</s>", "</s>", "<s>", tools=True, rewrites=moves_the_preface),
    Style("qwen2_5", qwen2_5, _CHATML, "<|im_end|>", "<|im_end|>", tools=True, plain_tokens=_HERMES[:2]),
    Style(
        "qwen3", qwen3, _CHATML, "<|im_end|>", "<|im_end|>", tools=True, thoughts=True, plain_tokens=_HERMES,
        rewrites=forgets_thoughts,
    ),
    Style("gemma2", gemma, _GEMMA, "<end_of_turn>", "<eos>", "<bos>", system=False),
    Style("gemma3", gemma, _GEMMA, "<end_of_turn>", "<eos>", "<bos>"),
    Style("phi3", phi3, _PHI3, "<|end|>", "<|endoftext|>"),
    Style("phi4", marked(_PHI4, "<|im_end|>"), (*_CHATML, "<|im_sep|>"), "<|im_end|>", "<|im_end|>"),
    Style("zephyr", marked("<|{}|>\n", "</s>", "\n"), ("<s>", "</s>"), "</s>", "</s>", kind="sentencepiece"),
    Style("chatml", marked(_TURN, "<|im_end|>", "\n"), _CHATML, "<|im_end|>", "<|endoftext|>"),
    Style("tulu", tulu, ("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>"),
    Style("command_r", command_r, _COMMAND_R, "<|END_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>"),
    Style("deepseek_v2", deepseek_v2, _DEEPSEEK, _DEEPSEEK[1], _DEEPSEEK[1], _DEEPSEEK[0]),
    Style("deepseek_v3", deepseek_v3, _DEEPSEEK + _DEEPSEEK_TOOLS, _DEEPSEEK[1], _DEEPSEEK[1], _DEEPSEEK[0]),
    Style("granite", granite, _GRANITE, "<|end_of_text|>", "<|end_of_text|>", tools=True),
    Style("smollm2", smollm2, _CHATML, "<|im_end|>", "<|im_end|>"),
)  # fmt: skip
