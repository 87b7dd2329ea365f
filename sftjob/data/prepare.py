"""Data files → tokens on disk: `python -m sftjob.data.prepare --work DIR`, a child of the supervisor, without torch.

Reads job.json and prepare.json in the work folder and puts in place, all at once:

<out>/
  train.arrow       Arrow IPC stream: `input_ids`, `labels`, for packed rows `seq_lengths`; `datasets.Dataset.from_file`
                    reads it
  eval.arrow        the same for rows held out, never packed; absent without them
  eval_rows.jsonl   `{"id", "messages"}` of each row of eval.arrow, in its order; `tools`, `text` where there are any
  tokenizer/        what `ChatTokenizer.save` writes
  audit.json        `Audit`: what is in the data
  prepared.json     `PreparedData`: counts, and hashes of all files above
"""

import argparse
import errno
import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sftjob.contract import keys
from sftjob.data.arrow import ArrowRows, TokenSpool
from sftjob.data.audit import SplitTally, findings, make_audit
from sftjob.data.encode import Block, encode_options, encode_split, require_embeddings, template_of
from sftjob.data.inputs import PrepareInput
from sftjob.data.packing import best_fit_decreasing
from sftjob.data.problems import Problems
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import DataError, DiskFull, InputMissing, SftjobError
from sftjob.records import Audit, FileEntry, PreparedData, read_record
from sftjob.resolve import ResolvedJob, read_resolved

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
        DataError: rows are wrong, nothing or everything would be trained, or held-out rows are trained on.
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
    data = job.data
    tokenizer = ChatTokenizer.from_folder(inputs.model, template=template_of(data))
    require_embeddings(tokenizer, inputs.model, job.facts.vocab_size)
    writing = _Writing(job, inputs, folder, tokenizer)
    tallies = {"train": writing.write_train()}
    if inputs.eval:
        tallies["eval"] = writing.write_eval()
    writing.problems.raise_any()
    audit = make_audit(tallies, packs=writing.packs)
    names = {split: files[0].name for split, files in (("train", inputs.train), ("eval", inputs.eval)) if files}
    if wrong := list(findings(tallies, audit, files=names, data=data, max_length=job.training.max_length)):
        raise DataError(wrong)
    _tell(audit, writing.problems)
    (folder / "audit.json").write_bytes(audit.to_json())
    tokenizer.save(folder / "tokenizer")
    return PreparedData(
        digest=inputs.digest,
        attempt=inputs.attempt,
        template_sha256=tokenizer.template.sha256,
        vocab_size=tokenizer.vocab_size,
        added_token_ids=tokenizer.added_token_ids,
        splits={name: split.counts for name, split in audit.splits.items()},
        files=tuple(_entries(folder, inputs)),
    )


class _Writing:
    """Writes the splits of a job into a folder."""

    def __init__(self, job: ResolvedJob, inputs: PrepareInput, folder: Path, tokenizer: ChatTokenizer) -> None:
        self.problems = Problems(allowed=job.data.max_skipped_rows)
        self.packs: int | None = None
        self._job = job
        self._inputs = inputs
        self._folder = folder
        self._tokenizer = tokenizer

    def write_train(self) -> SplitTally:
        training, path = self._job.training, self._folder / "train.arrow"
        if not training.packing:
            with ArrowRows(path) as arrow:
                return self._encode("train", arrow.write_block)
        with TokenSpool(self._folder) as spool, ArrowRows(path, packed=True) as arrow:
            tally = self._encode("train", spool.write_block)
            spool.close_writing()
            packs = best_fit_decreasing(spool.lengths, training.max_length)
            self.packs = len(packs)
            spool.write_packs(packs, arrow)
        return tally

    def write_eval(self) -> SplitTally:
        with ArrowRows(self._folder / "eval.arrow") as arrow, (self._folder / "eval_rows.jsonl").open("w") as texts:

            def write(block: Block) -> None:
                arrow.write_block(block)
                texts.writelines(f"{line}\n" for line in block.texts)

            return self._encode("eval", write)

    def _encode(self, split: str, write: Callable[[Block], None]) -> SplitTally:
        held_out = split == "eval"
        data, files = self._job.data, self._inputs.eval if held_out else self._inputs.train
        tally, progress = SplitTally(), _Progress(split)
        options = encode_options(
            data, model=self._inputs.model, max_length=self._job.training.max_length, held_out=held_out
        )
        for block in encode_split(
            files, self._tokenizer, options, mixing=data.mixing, problems=self.problems, tally=tally
        ):
            write(block)
            progress.tell(tally.counts["rows"])
        return tally


def _tell(audit: Audit, problems: Problems) -> None:
    """What a person should read before the training, in a few lines."""
    for line in problems.skipped():
        print(line, flush=True)
    for name, split in audit.splits.items():
        if split.counts.straddling:
            print(f"{name}: {split.counts.straddling:,} answers begin inside a token, which is not trained", flush=True)
        if split.duplicates:
            print(f"{name}: {split.duplicates:,} of {split.counts.rows:,} rows repeat an earlier one", flush=True)
    if audit.overlap:
        print(f"eval: {audit.overlap:,} rows ask what training rows ask, too", flush=True)


class _Progress:
    """Prints how many rows are done, now and then."""

    def __init__(self, split: str) -> None:
        self._split = split
        self._printed = time.monotonic()

    def tell(self, rows: int) -> None:
        if time.monotonic() - self._printed >= PROGRESS_SECONDS:
            self._printed = time.monotonic()
            print(f"{self._split}: {rows:,} rows tokenised", flush=True)


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
