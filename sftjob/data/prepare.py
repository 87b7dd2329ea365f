"""Data files → tokens on disk: `python -m sftjob.data.prepare --work DIR`, a child of the supervisor, without torch.

Reads job.json and prepare.json in the work folder and puts in place, all at once:

<out>/
  train.arrow       Arrow IPC stream: `input_ids`, `labels`; `datasets.Dataset.from_file` reads it
  eval.arrow        the same for rows held out; absent without them
  eval_rows.jsonl   `{"id", "messages"}` of each row of eval.arrow, in its order
  tokenizer/        what `ChatTokenizer.save` writes
  prepared.json     `PreparedData`: counts, and hashes of all files above
"""

import argparse
import errno
import hashlib
import json
import shutil
import sys
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa

from sftjob.contract import keys
from sftjob.data.formats import iter_messages
from sftjob.data.inputs import InputFile, PrepareInput
from sftjob.data.masks import Encoded, encode_rows
from sftjob.data.messages import Row, as_dicts
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import ConfigurationError, DataError, DiskFull, InputMissing, SftjobError
from sftjob.records import FileEntry, PreparedData, SplitCounts, read_record
from sftjob.resolve import ResolvedJob, read_resolved

__all__ = ["InputFile", "PrepareInput", "main", "prepare"]

BATCH_ROWS: Final = 1000
"""Rows of one Arrow record batch; bounds the memory that writing takes."""
PROGRESS_SECONDS: Final = 5.0


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the module as a program; returns its exit code.

    An error is printed to stderr, a line for each problem, and left in <work>/prepare.error for the supervisor.
    """
    parser = argparse.ArgumentParser(prog="python -m sftjob.data.prepare")
    parser.add_argument("--work", type=Path, required=True, help="the work folder, with job.json and prepare.json")
    work: Path = parser.parse_args(argv).work
    report = work / "prepare.error"
    report.unlink(missing_ok=True)
    try:
        with _disk_full():
            job = read_resolved(_read(work / "job.json"), "job.json")
            prepare(job, read_record(PrepareInput, _read(work / "prepare.json"), "prepare.json"))
    except SftjobError as error:
        print(error, file=sys.stderr)
        report.write_text(f"{error}\n", encoding="utf-8")
        return error.exit_code
    return 0


def prepare(job: ResolvedJob, inputs: PrepareInput) -> PreparedData:
    """Tokenises a job's data and puts the result in place at `inputs.out`, whole or not at all.

    Raises:
        ConfigurationError: the tokenizer, its template and the model do not fit one another.
        DataError: rows are wrong, or none keeps a trained token.
        InputMissing: a file is not there.
    """
    temporary = inputs.out.with_name(f"{inputs.out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        prepared = _prepare(job, inputs, temporary)
        (temporary / "prepared.json").write_bytes(prepared.to_json())
        if inputs.out.exists():
            shutil.rmtree(inputs.out)
        temporary.replace(inputs.out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return prepared


def _prepare(job: ResolvedJob, inputs: PrepareInput, folder: Path) -> PreparedData:
    tokenizer = ChatTokenizer.from_folder(inputs.model, template=job.data.template)
    _require_embeddings(tokenizer, job.facts.vocab_size)
    splits = {"train": _write_split(tokenizer, job, "train", inputs.train, folder)}
    if inputs.eval:
        splits["eval"] = _write_split(tokenizer, job, "eval", inputs.eval, folder)
    tokenizer.save(folder / "tokenizer")
    return PreparedData(
        digest=inputs.digest,
        attempt=inputs.attempt,
        template_sha256=tokenizer.template.sha256,
        vocab_size=tokenizer.vocab_size,
        added_token_ids=tokenizer.added_token_ids,
        splits=splits,
        files=tuple(_entries(folder, inputs)),
    )


def _require_embeddings(tokenizer: ChatTokenizer, rows: int) -> None:
    if tokenizer.base_vocab_size > rows:
        raise ConfigurationError(
            f"the tokenizer needs {tokenizer.base_vocab_size:,} embeddings, the model has {rows:,} (vocab_size)",
            field="model",
            hint="use the tokenizer that the model was trained with",
        )


def _write_split(
    tokenizer: ChatTokenizer, job: ResolvedJob, split: str, files: Sequence[InputFile], folder: Path
) -> SplitCounts:
    counts: Counter[str] = Counter()
    progress = _Progress(split)
    max_length = job.training.max_length
    rows = encode_rows(tokenizer, _rows(files), train_on=job.data.train_on, max_length=max_length)
    with ExitStack() as stack:
        arrow = stack.enter_context(_ArrowFile(folder / f"{split}.arrow"))
        texts = stack.enter_context((folder / "eval_rows.jsonl").open("w")) if split == "eval" else None
        for row, encoded in rows:
            progress.tick()
            _count(counts, encoded)
            if not encoded.trained_tokens:
                continue
            arrow.write(encoded)
            if texts:
                texts.write(json.dumps({"id": row.id, "messages": as_dicts(row.messages)}) + "\n")
    if counts["straddling"]:
        print(f"{split}: {counts['straddling']:,} answers begin inside a token, which is not trained", flush=True)
    if not counts["kept"]:
        raise DataError(
            f"no row of `{split}` keeps a trained token within {max_length} tokens",
            file=files[0].name,
            field="training.max_length",
            hint="raise training.max_length",
        )
    return SplitCounts.model_validate(counts)


def _rows(files: Sequence[InputFile]) -> Iterator[Row]:
    names = Counter(file.name for file in files)
    for number, file in enumerate(files):
        # Row ids are made of the name; two files of one name must not share ids.
        name = file.name if names[file.name] == 1 else f"{file.name}#{number}"
        yield from iter_messages(file.path, format=file.format, columns=file.columns, name=name)


def _count(counts: Counter[str], encoded: Encoded) -> None:
    kept = bool(encoded.trained_tokens)
    counts["rows"] += 1
    counts["truncated"] += encoded.truncated
    counts["straddling"] += encoded.straddling
    counts["kept"] += kept
    counts["without_trained_token"] += not kept
    if kept:
        counts["tokens"] += len(encoded.input_ids)
        counts["trained_tokens"] += encoded.trained_tokens
        counts["longest"] = max(counts["longest"], len(encoded.input_ids))


class _ArrowFile:
    """Writes `input_ids` and `labels` as an Arrow IPC stream, `BATCH_ROWS` rows at a time."""

    _SCHEMA: Final = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._writer = pa.ipc.new_stream(self._file, self._SCHEMA)
        self._batch: list[Encoded] = []

    def write(self, encoded: Encoded) -> None:
        self._batch.append(encoded)
        if len(self._batch) == BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        columns = [[row.input_ids for row in self._batch], [row.labels for row in self._batch]]
        self._writer.write_batch(pa.record_batch([_int32_lists(column) for column in columns], schema=self._SCHEMA))
        self._batch = []

    def __enter__(self) -> "_ArrowFile":
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        try:
            if failed is None:
                self._flush()
                self._writer.close()
        finally:
            self._file.close()


def _int32_lists(rows: Sequence[Sequence[int]]) -> pa.ListArray:
    """Made of buffers: `pa.array` would import pandas, which takes longer than tokenising a small data set."""
    values, ends = array("i"), array("i", [0])
    for row in rows:
        values.extend(row)
        ends.append(len(values))
    flat = pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(values)])
    return pa.Array.from_buffers(pa.list_(pa.int32()), len(rows), [None, pa.py_buffer(ends)], children=[flat])


class _Progress:
    """Prints how many rows are done, now and then."""

    def __init__(self, split: str) -> None:
        self._split = split
        self._rows = 0
        self._printed = time.monotonic()

    def tick(self) -> None:
        self._rows += 1
        if time.monotonic() - self._printed >= PROGRESS_SECONDS:
            self._printed = time.monotonic()
            print(f"{self._split}: {self._rows:,} rows tokenised", flush=True)


def _entries(folder: Path, inputs: PrepareInput) -> Iterator[FileEntry]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        key = keys.data(inputs.digest, inputs.attempt, name)
        yield FileEntry(path=name, key=key, size=path.stat().st_size, sha256=sha256)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputMissing("no such file", file=str(path)) from error


@contextmanager
def _disk_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull("no space left for the prepared data", hint="raise resources.ephemeral_storage") from error


if __name__ == "__main__":
    raise SystemExit(main())
