"""Starts what must not outlive the supervisor: `python -m sftjob.train.launcher [--processes N --ends FILE] COMMAND…`.

One process: binds itself to its parent's life and becomes COMMAND. Several: runs torchrun in this process, which starts
COMMAND once a rank through this launcher again, so that ranks die with torchrun as torchrun dies with the supervisor.
Torch is imported only here, and only for several processes.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sftjob.train.processes import die_with_parent


def wrapped(command: Sequence[str], *, parent: int | None = None) -> list[str]:
    """`command` behind this launcher: it is killed when its parent ends."""
    known = () if parent is None else ("--parent", str(parent))
    return [sys.executable, "-m", "sftjob.train.launcher", *known, *command]


def torchrun(command: Sequence[str], *, processes: int, ends: Path, parent: int) -> list[str]:
    """Puts torchrun over `processes` local ranks of `command`.

    Args:
        ends: file that gets {rank: exit code} of the ranks that failed first, signals negative; absent if none did.
    """
    return wrapped(("--processes", str(processes), "--ends", str(ends), *command), parent=parent)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    die_with_parent(arguments.parent)
    if arguments.processes == 1:
        os.execvp(arguments.command[0], arguments.command)
    return _run_torchrun(arguments.command, arguments.processes, arguments.ends)


def _run_torchrun(command: Sequence[str], processes: int, ends: Path) -> int:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.run import parse_args, run  # noqa: PLC0415

    options = (
        "--standalone",
        "--local-addr=127.0.0.1",  # torchrun's own guess is the host's full name, which need not resolve
        "--max-restarts=0",
        f"--nproc-per-node={processes}",
        "--no-python",
    )
    try:
        run(parse_args([*options, *wrapped(command)]))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        # torchrun's exit code is 1 however a rank ended (torch 2.13); this file keeps what it knew.
        ends.parent.mkdir(parents=True, exist_ok=True)
        ends.write_text(json.dumps({rank: failure.exitcode for rank, failure in error.failures.items()}))
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sftjob.train.launcher", description=__doc__)
    parser.add_argument("--parent", type=int)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--ends", type=Path, default=Path(os.devnull))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
