"""`sftjob data audit | preview | convert`: a spec's data, or a file's, as training will see them. No torch here."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from sftjob.app.data_source import DataSet
from sftjob.data.audit import SplitTally, findings, make_audit
from sftjob.data.messages import Row, as_dicts
from sftjob.data.problems import Problems
from sftjob.data.rows import read_split
from sftjob.errors import DataError, InputMissing, Problem, SpecError
from sftjob.inputs import Progress
from sftjob.records import Audit
from sftjob.storage.local import placing

if TYPE_CHECKING:
    from sftjob.data.preview import PreviewRow
    from sftjob.data.tokenizer import ChatTokenizer


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    audit: Audit
    wrong: tuple[Problem, ...]
    """Why nobody should train on this."""


def audit_data(given: DataSet, progress: Progress) -> AuditResult:
    """Reads all rows and counts.

    Raises:
        DataError: rows cannot be used.
    """
    tokenizer = _tokenizer(given)
    problems = Problems(allowed=given.data.max_skipped_rows)
    tallies = {}
    for split, files in given.files.items():
        progress(f"reading {', '.join(file.name for file in files)} …")
        tallies[split] = _tally(given, split, tokenizer, problems, progress)
    problems.raise_any()
    _tell(problems.skipped(), progress)
    audit = make_audit(tallies, tokenised=tokenizer is not None)
    names = {split: files[0].name for split, files in given.files.items()}
    wrong = findings(tallies, audit, files=names, data=given.data, max_length=given.max_length)
    return AuditResult(audit=audit, wrong=tuple(wrong))


def preview_data(given: DataSet, split: str, count: int, *, skip: int = 0, progress: Progress) -> "list[PreviewRow]":
    """Some rows of a split as the model will see them; rows that cannot be used are told and passed over.

    Raises:
        SpecError: no model was named, or there is no such split.
        InputMissing: no rows are held out.
        DataError: there is no usable row.
    """
    tokenizer = _tokenizer(given)
    if tokenizer is None:
        raise SpecError("names no model, so there are no tokens", field="--model", hint="give --model FOLDER")
    if split not in ("train", "eval"):
        raise SpecError(f"`{split}` is no split", field="--split", hint="write train or eval")
    if split not in given.files:
        raise InputMissing("no rows are held out", field="--split", hint="name them with data.eval, or with --eval")
    problems = Problems()
    found = list(islice(_rows(given, split, problems, progress), skip, skip + count))
    if not found:
        problems.raise_any()
        raise DataError(f"has no more than {skip} rows", file=given.files[split][0].name, hint="lower --skip")
    from sftjob.data.preview import preview  # noqa: PLC0415 - as in `_tokenizer`

    shown = preview(tokenizer, found, train_on=given.data.train_on, max_length=given.max_length, problems=problems)
    if not shown:
        problems.raise_any()
    _tell(problems.skipped(), progress)
    return shown


def convert_data(given: DataSet, out: Path, progress: Progress) -> int:
    """Writes the training rows as ChatML JSON Lines, whole or not at all, and returns their number.

    Raises:
        DataError: rows cannot be used.
        SpecError: `out` is a folder.
        Denied, DiskFull: the file cannot be written.
    """
    require_no_folder(out)
    problems, count = Problems(allowed=given.data.max_skipped_rows), 0
    with placing(out) as file:
        for row in _rows(given, "train", problems, progress):
            file.write(_line(row))
            count += 1
        problems.raise_any()
    _tell(problems.skipped(), progress)
    return count


def require_no_folder(path: Path) -> None:
    """Raises SpecError where a file is to be written and a folder stands."""
    if path.is_dir():
        raise SpecError("is a folder", file=str(path), hint="name a file")


def _rows(given: DataSet, split: str, problems: Problems, progress: Progress) -> Iterator[Row]:
    counts = SplitTally().counts
    return read_split(given.files[split], mixing=given.data.mixing, problems=problems, counts=counts, progress=progress)


def _tell(lines: Iterable[str], progress: Progress) -> None:
    for line in lines:
        progress(line)


def _tally(
    given: DataSet, split: str, tokenizer: "ChatTokenizer | None", problems: Problems, progress: Progress
) -> SplitTally:
    tally, files, mixing = SplitTally(), given.files[split], given.data.mixing
    if given.model is None or tokenizer is None:
        before = problems.rows
        for row in read_split(files, mixing=mixing, problems=problems, counts=tally.counts, progress=progress):
            tally.add_row(row)
            tally.add_characters(row)
        tally.finish(problems.rows - before)
        return tally
    from sftjob.data.encode import encode_options, encode_split  # noqa: PLC0415 - as in `_tokenizer`

    options = encode_options(given.data, model=given.model, max_length=given.max_length, held_out=split == "eval")
    for _ in encode_split(files, tokenizer, options, mixing=mixing, problems=problems, tally=tally, progress=progress):
        pass
    return tally


def _tokenizer(given: DataSet) -> "ChatTokenizer | None":
    """The tokenizer of the model that was named, which must fit its embeddings."""
    if given.model is None:
        return None
    from sftjob.data.encode import require_embeddings, template_of  # noqa: PLC0415 - the core has no tokenizer
    from sftjob.data.tokenizer import ChatTokenizer  # noqa: PLC0415

    tokenizer = ChatTokenizer.from_folder(given.model, template=template_of(given.data))
    if given.vocab_size is not None:
        require_embeddings(tokenizer, given.model, given.vocab_size)
    return tokenizer


def _line(row: Row) -> bytes:
    value: dict[str, object] = {"text": row.text} if row.text is not None else {"messages": as_dicts(row.messages)}
    if row.tools:
        value["tools"] = row.tools
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
