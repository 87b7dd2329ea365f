"""The corpora of broken files, through the command line: one line a mistake, exit 65, quickly, and no row's text."""

import json
import sys
import time
from pathlib import Path

import pytest

from sftjob.cli import main
from tests.unit.data.test_broken_files import BROKEN_TEXT
from tests.unit.data.test_broken_sources import CASES, SECRET
from tests.unit.data.test_formats_broken import CALLS, COLUMNS, MESSAGES, SEVERAL, SHAREGPT, TREES

SECONDS = 2.0
"""A limit, not a measurement: a broken file is told at once."""
ROWS = {
    f"{group}: {case}": ("f", "\n".join(json.dumps(row) for row in (rows if group == "several" else [rows])).encode())
    for group, cases in (
        ("messages", MESSAGES),
        ("calls", CALLS),
        ("sharegpt", SHAREGPT),
        ("columns", COLUMNS),
        ("trees", TREES),
        ("several", SEVERAL),
    )
    for case, (rows, _) in cases.items()
}
FILES = {
    **{f"source: {case}": (name, data) for case, (name, data, _) in CASES.items()},
    **{f"text: {case}": ("f", data) for case, (data, _) in BROKEN_TEXT.items()},
    **ROWS,
}
ANSWER = {"prompt": "a", "completion": SECRET}
TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<end>{% endfor %}"
TEMPLATES = {
    "raises": ("{% if messages|length > 1 and messages[0].content == 'a' %}{{ raise_exception(messages[1].content) }}"
               "{% endif %}" + TURNS, "messages: the chat template refuses the conversation"),
    "leaves out the question": ("{% for m in messages if m.role == 'assistant' %}{{ m.content }}<end>{% endfor %}",
                                "messages.0.content: the chat template leaves it out"),
}  # fmt: skip


def test_the_corpora_are_large_enough() -> None:
    assert len(CASES) + len(BROKEN_TEXT) >= 80
    assert len(ROWS) >= 80


@pytest.mark.parametrize("case", FILES)
def test_a_broken_file(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, data = FILES[case]
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(data)
    begin = time.monotonic()
    assert _run(monkeypatch, "audit", name) == 65
    assert time.monotonic() - begin < SECONDS
    captured = capsys.readouterr()
    assert captured.out == ""
    first, *lines = captured.err.splitlines()
    assert first == f"reading {name} …"
    assert lines
    assert all(line.startswith(f"error: {name}:") for line in lines)
    assert SECRET not in captured.err

    assert _run(monkeypatch, "convert", name, "-o", "out.jsonl") == 65
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("case", TEMPLATES)
def test_a_template_that_does_not_take_a_row(
    case: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    template, reason = TEMPLATES[case]
    monkeypatch.chdir(tmp_path)
    Path("f.jsonl").write_text(json.dumps(ANSWER))
    Path("t.jinja").write_text(template)
    assert _run(monkeypatch, "audit", "f.jsonl", "--model", str(model), "--template", "t.jinja") == 65
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert line.startswith(f"error: f.jsonl:1: {reason}")
    assert SECRET not in line


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["sftjob", "data", *arguments])
    try:
        main()
    except SystemExit as leave:
        return int(leave.code or 0)
    return 0
