"""Counts what is in a data file by other means than the package, which it does not import.

    python tests/independent_audit.py FILE [TOKENIZER.json MAX_LENGTH]

Prints JSON. Conversations are written out by hand in ChatML, piece by piece, and each piece is tokenised for itself;
the formats that it knows are those of the files in its list of readers.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Turn = tuple[str, str]
"""Role, and the text between the role's line and the end token."""
Conversation = list[Turn]


def main() -> None:
    path = Path(sys.argv[1])
    conversations = list(read(path))
    counts: dict[str, Any] = {
        "rows": len(conversations),
        "messages_by_role": dict(Counter(role for turns in conversations for role, _ in turns if role != "tools")),
        "duplicates": len(conversations) - len({json.dumps(turns) for turns in conversations}),
    }
    if len(sys.argv) > 2:
        counts |= tokens(conversations, sys.argv[2], int(sys.argv[3]))
    print(json.dumps(counts))


def read(path: Path) -> Iterator[Conversation]:
    text = path.read_text(encoding="utf-8")
    rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    for row in rows:
        if "question" in row:
            yield [("user", row["question"]), ("assistant", row["answer"])]
        elif "instruction" in row:
            asked = row["instruction"] + ("\n\n" + row["input"] if row["input"] else "")
            yield [("user", asked), ("assistant", row["output"])]
        else:
            yield [*tools(row["tools"]), *map(turn, row["conversations"])]


def tools(written: str) -> list[Turn]:
    definitions = json.loads(written) if written.strip() else []
    if not definitions:
        return []
    lines = [json.dumps({"type": "function", "function": each}, ensure_ascii=False) for each in definitions]
    shown = (
        "You may call these functions:\n<tools>\n" + "\n".join(lines) + "\n</tools>\n"
        "For each call, write its name and its arguments as JSON:\n"
        '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>'
    )
    return [("tools", shown)]


def turn(written: dict[str, str]) -> Turn:
    role, value = written["from"], written["value"]
    if role == "function_call":
        call = json.loads(value)
        arguments = call["arguments"]
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        shown = json.dumps({"name": call["name"], "arguments": arguments}, ensure_ascii=False)
        return "assistant", f"<tool_call>\n{shown}\n</tool_call>"
    if role == "observation":
        return "tool", f"<tool_response>\n{value}\n</tool_response>"
    return {"human": "user", "gpt": "assistant"}[role], value


def tokens(conversations: list[Conversation], tokenizer_file: str, max_length: int) -> dict[str, Any]:
    from tokenizers import Tokenizer  # noqa: PLC0415 - counting rows needs none

    tokenizer = Tokenizer.from_file(tokenizer_file)
    tokenizer.no_truncation()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    counts: Counter[str] = Counter()
    for turns in conversations:
        marks = list(pieces(tokenizer, turns))  # (trained, tokens)
        length = sum(size for _, size in marks)
        place = trained = ends = 0
        for is_trained, size in marks:
            if is_trained:
                trained += max(0, min(max_length - place, size))
                ends += place + size <= max_length
            place += size
        counts["truncated"] += length > max_length
        if not trained:
            counts["without_trained_token"] += 1
            continue
        counts["kept"] += 1
        counts["tokens"] += min(length, max_length)
        counts["trained_tokens"] += trained
        counts["trained_ends"] += ends
        counts["longest"] = max(counts["longest"], min(length, max_length))
    return {"trained_turns": sum(role == "assistant" for turns in conversations for role, _ in turns), **counts}


def pieces(tokenizer: Any, turns: Conversation) -> Iterator[tuple[bool, int]]:
    """Prompts and answers in turn, each with its number of tokens."""

    def size(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    before = ""
    for role, text in turns:
        name = "system" if role == "tools" else role
        if role == "assistant":
            yield False, size(f"{before}<|im_start|>assistant\n")
            yield True, size(f"{text}<|im_end|>")
            before = "\n"
        else:
            before += f"<|im_start|>{name}\n{text}<|im_end|>\n"
    if before:
        yield False, size(before)


if __name__ == "__main__":
    main()
