"""What an evaluation works on, read from the run's store before any model is loaded. No torch here."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from sftjob.app.subject import Subject
from sftjob.data.masks import Encoded
from sftjob.data.messages import from_dict
from sftjob.errors import SpecError, StorageError
from sftjob.evaluate.questions import HeldOutRow, Question
from sftjob.storage import fetch_files

_ROWS: Final = "eval.arrow"
_MESSAGES: Final = "eval_rows.jsonl"
_TOKENIZER: Final = "tokenizer"


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The rows that are scored, in order: as tokens under the template, and as messages."""

    encoded: tuple[Encoded, ...]
    rows: tuple[HeldOutRow, ...]


def check_lengths(subject: Subject) -> None:
    """Raises SpecError when the answers alone would fill the model's context."""
    context = subject.job.facts.max_position_embeddings
    new = subject.spec.evaluation.generation.max_new_tokens
    if context and new >= context:
        raise SpecError(
            f"{new} tokens leave no room for a prompt in the model's {context} (max_position_embeddings)",
            field="evaluation.generation.max_new_tokens",
            hint=f"use at most {context // 2}",
        )


def fetch_held_out(subject: Subject, into: Path) -> Path:
    """Brings held-out rows and tokenizer here, every hash checked; returns the tokenizer's folder."""
    wanted = [
        entry
        for entry in subject.prepared.files
        if entry.path in (_ROWS, _MESSAGES) or entry.path.startswith(f"{_TOKENIZER}/")
    ]
    fetch_files(subject.store, wanted, into)
    return into / _TOKENIZER


def read_held_out(folder: Path, max_rows: int | None) -> HeldOut:
    """The first `max_rows` held-out rows; none where nothing was held out.

    Raises:
        StorageError: tokens and messages do not belong together.
    """
    if not (folder / _ROWS).is_file():
        return HeldOut(encoded=(), rows=())
    with pa.OSFile(str(folder / _ROWS)) as file:
        table = pa.ipc.open_stream(file).read_all()
    lines = (folder / _MESSAGES).read_bytes().splitlines()
    if table.num_rows != len(lines):
        raise StorageError(
            f"{table.num_rows} rows, but {_MESSAGES} has {len(lines)}", file=str(folder / _ROWS), hint="train again"
        )
    first = table.slice(0, max_rows)
    columns = zip(first["input_ids"].to_pylist(), first["labels"].to_pylist(), strict=True)
    return HeldOut(
        encoded=tuple(Encoded(input_ids=ids, labels=labels) for ids, labels in columns),
        rows=tuple(map(_row, lines[: first.num_rows])),
    )


def held_out_digest(held_out: HeldOut, asked: Sequence[Question]) -> str:
    """SHA-256 over the tokens and labels that are scored and the questions whose answers are compared."""
    digest = hashlib.sha256()
    for row in held_out.encoded:
        digest.update(json.dumps([row.input_ids, row.labels]).encode() + b"\n")
    for question in asked:
        if question.reference is not None:
            digest.update(json.dumps([question.id, question.text, question.reference]).encode() + b"\n")
    return digest.hexdigest()


def _row(line: bytes) -> HeldOutRow:
    value = json.loads(line)
    messages = tuple(map(from_dict, value["messages"]))
    return HeldOutRow(value["id"], messages, tools=tuple(value.get("tools", ())), text=value.get("text"))
