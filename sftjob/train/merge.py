"""The merged model of an attempt: `python -m sftjob.train.merge --work DIR`, a child of the supervisor.

Only the child imports torch, when it has something to do. It reads the work folder as a rank does, and its export/:

merged/       the whole model, when its logits are those of the adapter
merge.json    `MergeParity`: how they compare; written last
merge.error   what a person can repair, a line for each problem
"""

import argparse
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sftjob.contract import ExitCode
from sftjob.errors import CrashError, InputMissing, Problem, SftjobError
from sftjob.records import MergeParity, read_record
from sftjob.resolve import ResolvedJob, read_resolved
from sftjob.storage.local import placing
from sftjob.train.attempt import say
from sftjob.train.launcher import wrapped
from sftjob.train.workdir import RankInput, WorkDir
from sftjob.train.worker import library_environment, verdict

if TYPE_CHECKING:
    from sftjob.methods.merge import Rows

MERGE: Final[tuple[str, ...]] = (sys.executable, "-m", "sftjob.train.merge")
MERGED: Final = "merged"
_PARITY: Final = "merge.json"
_ERROR: Final = "merge.error"
_OUT_OF_MEMORY: Final = "out of memory while merging, which holds the whole base model; raise resources.memory"


def run_merge(work: WorkDir, command: Sequence[str] = MERGE) -> tuple[Path, MergeParity]:
    """Has the export merged by a child process; torch stays out of this one.

    Args:
        command: `--work DIR` is appended.

    Returns:
        The merged model's folder, and what it was compared with.

    Raises:
        ConfigurationError: the merged model's logits are not those of the adapter.
        CrashError: the child was killed, or has a bug.
    """
    say("merging the adapter into its base …")
    for name in (_PARITY, _ERROR):
        (work.root / name).unlink(missing_ok=True)
    # In a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone; it dies with this thread.
    child = wrapped([*command, "--work", str(work.root)])
    code = subprocess.run(child, start_new_session=True, check=False).returncode
    if code != ExitCode.DONE:
        raise _child_error(work.root / _ERROR, code)
    path = work.root / _PARITY
    return work.root / MERGED, read_record(MergeParity, _read(path), str(path))


def main(argv: Sequence[str] | None = None) -> int:
    """The child. Its errors are told by the supervisor, except those that nobody foresaw."""
    parser = argparse.ArgumentParser(prog="python -m sftjob.train.merge")
    parser.add_argument("--work", type=Path, required=True, help="the work folder, with an export in it")
    work = WorkDir(parser.parse_args(argv).work)
    job: ResolvedJob | None = None
    try:
        job = read_resolved(_read(work.job), str(work.job))
        given = read_record(RankInput, _read(work.rank_input), str(work.rank_input))
        parity = _merge(job, given, work)
    except SftjobError as error:
        (work.root / _ERROR).write_text(f"{error}\n", encoding="utf-8")
        return error.exit_code
    except Exception as error:
        return _unforeseen(error, job, work.root / _ERROR)
    with placing(work.root / _PARITY) as file:
        file.write(parity.to_json())
    return ExitCode.DONE


def read_parity_rows(data: Path) -> "tuple[str, Rows]":
    """Name of the split and token ids of its rows: the held-out ones, or those of the training where there are none.

    Of a pack only the first document counts.

    Args:
        data: prepared data, with train.arrow and perhaps eval.arrow.
    """
    import pyarrow as pa  # noqa: PLC0415 - not for the supervisor

    split = "eval" if (data / "eval.arrow").is_file() else "train"
    with pa.OSFile(str(data / f"{split}.arrow")) as file:
        first = next(iter(pa.ipc.open_stream(file)))
    ids = first["input_ids"].to_pylist()
    lengths = first["seq_lengths"].to_pylist() if "seq_lengths" in first.schema.names else [[len(row)] for row in ids]
    return split, [row[: ends[0]] for row, ends in zip(ids, lengths, strict=True)]


def _merge(job: ResolvedJob, given: RankInput, work: WorkDir) -> MergeParity:
    _prepare_libraries(job)
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415 - imports torch

    from sftjob.methods import fine_tuning  # noqa: PLC0415
    from sftjob.methods.merge import MergeTask, merge_export  # noqa: PLC0415

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    split, rows = read_parity_rows(given.data)
    task = MergeTask(
        method=fine_tuning(job.method),
        precision=job.training.precision,
        base=given.model,
        export=work.export,
        vocab_size=given.vocab_size,
        seed=job.training.seed,
        split=split,
        rows=rows,
        tolerance=given.export.merge_tolerance,
        mixture=bool(job.facts.num_experts),
    )
    return merge_export(task, work.root / MERGED, say)


def _prepare_libraries(job: ResolvedJob) -> None:
    """For one process, whatever the training had."""
    alone = job.model_copy(update={"launch": job.launch.model_copy(update={"strategy": "single"})})
    for name, value in library_environment(os.environ, alone, 1).items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")  # what libraries advise each other is not for who reads a training log


def _unforeseen(error: Exception, job: ResolvedJob | None, path: Path) -> int:
    if _is_out_of_memory(error):
        code, reason = ExitCode.CRASH, _OUT_OF_MEMORY
    else:
        code, reason = verdict(error, job)
    path.write_text(f"{reason}\n", encoding="utf-8")
    return code


def _is_out_of_memory(error: Exception) -> bool:
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)


def _child_error(path: Path, code: int) -> SftjobError:
    try:
        problems = [Problem(reason=line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except FileNotFoundError:
        problems = []
    if not problems:
        how = f"was killed by signal {-code} (out of memory?)" if code < 0 else f"ended with code {code}"
        return CrashError(f"merging {how}", hint="raise resources.memory, or see the lines above")
    classes = {int(error.exit_code): error for error in SftjobError.__subclasses__()}
    return classes.get(code, CrashError)(problems)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputMissing("not there", file=str(path), hint="start it through python -m sftjob.train") from error


if __name__ == "__main__":
    sys.exit(main())
