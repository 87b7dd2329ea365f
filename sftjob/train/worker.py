"""`python -m sftjob.train.worker --work DIR`: one rank. It always leaves results/<rank>.json, unless it is killed.

RANK, LOCAL_RANK and WORLD_SIZE are torchrun's; without them this process is alone. Only the file `preempt` asks a rank
to save and stop. SIGTERM ends it at once: torchrun sends that when a peer has died, and then nothing can be saved.
"""

import argparse
import errno
import logging
import os
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sftjob.contract import ExitCode
from sftjob.errors import InputMissing, SftjobError
from sftjob.records import read_record
from sftjob.resolve import ResolvedJob, read_resolved
from sftjob.storage.local import placing
from sftjob.train.processes import die_with_parent
from sftjob.train.sinks import left_behind
from sftjob.train.workdir import RankInput, RankResult, WorkDir

_LIBRARY_SETTINGS: Final = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Read by libraries while they are imported: nothing here needs the network."""
_TORCHRUN_VARIABLES: Final = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
_GANG_OF_ONE: Final = {
    **dict.fromkeys(("RANK", "LOCAL_RANK", "MASTER_PORT"), "0"),
    **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "1"),
    "MASTER_ADDR": "127.0.0.1",
}
"""DeepSpeed wants a rendezvous even of one; port 0 is any free one."""
_TORCH_DISK_FULL: Final = ("PytorchStreamWriter failed writing", "] . unexpected pos ")
"""What `torch.save` says on a full disk (seen with torch 2.13)."""
_PEER_LOST: Final = ("Connection closed by peer", "Connection reset by peer", "NCCL error", "Broken pipe")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a rank; returns the exit status, which its result file holds as well."""
    arguments = _parser().parse_args(argv)
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the supervisor's affair
    rank, local_rank, world_size = _place(os.environ)
    result = run_rank(WorkDir(arguments.work), rank, local_rank, world_size, bar=arguments.bar)
    sys.stdout.flush()
    sys.stderr.flush()
    if (result.exit_code != ExitCode.DONE and world_size > 1) or left_behind():
        os._exit(result.exit_code)  # an orderly end would wait for peers that may be gone, or for W&B
    return result.exit_code


def run_rank(work: WorkDir, rank: int, local_rank: int, world_size: int, *, bar: bool = False) -> RankResult:
    """Runs a rank in this process and writes its result, whatever happens. Sets environment variables of libraries."""
    job: ResolvedJob | None = None
    step = 0
    try:
        job = read_resolved(_read(work.job), str(work.job))
        given = read_record(RankInput, _read(work.rank_input), str(work.rank_input))
        _prepare_libraries(library_environment(os.environ, job, world_size))
        from sftjob.train.gang import RankPlace  # noqa: PLC0415 - imports torch
        from sftjob.train.rank import Rank  # noqa: PLC0415

        this = Rank(job, given, work, RankPlace(rank, local_rank, world_size), bar=bar)
        try:
            outcome = this.run()
        finally:
            step = this.step
        code, reason = outcome.code, outcome.reason
    except BaseException as error:  # whatever it is, the supervisor must learn of it
        code, reason = verdict(error, job)
    if code is ExitCode.DISK_FULL:
        _drop_unfinished(work, local_rank)  # or there would be no room for the result either
    result = RankResult(
        rank=rank,
        exit_code=code,
        reason=reason,
        step=step,
        time=datetime.now(UTC).isoformat(timespec="microseconds"),
    )
    _write(result, work.result(rank))
    return result


def library_environment(environment: Mapping[str, str], job: ResolvedJob, world_size: int) -> dict[str, str | None]:
    """Variables that the libraries of a rank must find (None: must not find) when they are imported."""
    device: dict[str, str | None] = {}
    if job.launch.device == "cpu":
        # On a machine that has GPUs, too: whoever asks for one must find none.
        device = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    elif world_size == 1:
        # Trainer would spread a single process over all GPUs that it sees.
        device = {"CUDA_VISIBLE_DEVICES": environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}
    if world_size > 1:
        return {**_LIBRARY_SETTINGS, **device}
    # Without DeepSpeed accelerate would look for a rendezvous.
    alone: dict[str, str | None] = dict.fromkeys(_TORCHRUN_VARIABLES)
    return {**_LIBRARY_SETTINGS, **device, **(_GANG_OF_ONE if job.launch.zero_stage else alone)}


def verdict(error: BaseException, job: ResolvedJob | None) -> tuple[ExitCode, str]:
    """Exit code and one line for an error. The traceback of what nobody foresaw goes to stderr."""
    if isinstance(error, SftjobError):
        return error.exit_code, str(error).replace("\n", "; ")
    if _is_disk_full(error):
        return ExitCode.DISK_FULL, "no space left in the work folder; raise resources.ephemeral_storage"
    if _is_out_of_memory(error):
        return ExitCode.CRASH, _out_of_memory(job)
    traceback.print_exception(error, file=sys.stderr)
    text = next(iter(str(error).strip().splitlines()), "")
    if any(mark in str(error) for mark in _PEER_LOST):
        return ExitCode.CRASH, f"another rank is gone: {text}"
    return ExitCode.CRASH, f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """Rank, local rank and world size."""
    return (
        int(environment.get("RANK", "0")),
        int(environment.get("LOCAL_RANK", "0")),
        int(environment.get("WORLD_SIZE", "1")),
    )


def _prepare_libraries(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    # PEFT imports it, and it advises to install a package that loads code from a hub.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # What TRL and DeepSpeed call in other libraries is not the affair of who reads a training log.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|torch\.distributed)\.")


def _drop_unfinished(work: WorkDir, local_rank: int) -> None:
    """Deletes checkpoints that this rank has not marked: nobody can go on from them."""
    for folder in work.checkpoints.glob("checkpoint-*"):
        if not work.saved(int(folder.name.rpartition("-")[2]), local_rank).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputMissing("not there", file=str(path), hint="start ranks through python -m sftjob.train") from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _is_disk_full(error: BaseException) -> bool:
    """Also where torch and safetensors, written in other languages, keep the errno to themselves."""
    return any(
        (isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT))
        or "No space left on device" in str(each)
        or any(mark in str(each) for mark in _TORCH_DISK_FULL)
        for each in _chain(error)
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch's error is known by its name: this module imports no torch."""
    return any(
        isinstance(each, MemoryError)
        or type(each).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(each)
        for each in _chain(error)
    )


def _out_of_memory(job: ResolvedJob | None) -> str:
    if job is None:
        return "out of memory; raise resources.memory"
    training = job.training
    return (
        f"out of memory with {training.per_device_train_batch_size} rows of up to {training.max_length} tokens; lower "
        "training.per_device_train_batch_size (and raise training.gradient_accumulation_steps as much), lower "
        "training.max_length, or set training.gradient_checkpointing"
    )


def _write(result: RankResult, path: Path) -> None:
    try:
        with placing(path) as file:
            file.write(result.to_json())
    except SftjobError as error:
        print(f"{error}; the result would have been: {result.reason}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sftjob.train.worker", description="Runs one rank of an attempt.")
    parser.add_argument("--work", type=Path, required=True, help="the node's work folder")
    parser.add_argument("--bar", action="store_true", help="draw a progress bar: a terminal is at the other end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
