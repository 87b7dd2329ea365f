"""Starts what must not outlive the supervisor: `python -m sftjob.train.launcher [--processes N --ends FILE] COMMAND…`.

One process: binds itself to its parent's life and becomes COMMAND. Several: runs torchrun in this process, which starts
COMMAND once a rank through this launcher again, so that ranks die with torchrun as torchrun dies with the supervisor.
On several nodes the torchruns meet at `--master`; which node is which is given, so that a rank stays with its pod.
Torch is imported only here, and only for several processes.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sftjob.train.processes import die_with_parent


@dataclass(frozen=True)
class NodePlace:
    """Which of several nodes this one is, and where they meet."""

    index: int
    nodes: int
    master_addr: str
    """Of node 0, as the others reach it."""
    master_port: int


def wrapped(command: Sequence[str], *, parent: int | None = None) -> list[str]:
    """`command` behind this launcher: it is killed when its parent ends."""
    known = () if parent is None else ("--parent", str(parent))
    return [sys.executable, "-m", "sftjob.train.launcher", *known, *command]


def torchrun(
    command: Sequence[str], *, processes: int, ends: Path, parent: int, place: NodePlace | None = None
) -> list[str]:
    """Puts torchrun over `processes` local ranks of `command`.

    Args:
        ends: file that gets {rank: exit code} of the ranks that failed first, signals negative; absent if none did.
        place: on several nodes.
    """
    options = ["--processes", str(processes), "--ends", str(ends)]
    if place:
        options += ["--node", str(place.index), "--nodes", str(place.nodes)]
        options += ["--master", f"{place.master_addr}:{place.master_port}"]
    return wrapped((*options, *command), parent=parent)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    die_with_parent(arguments.parent)
    if arguments.processes == 1:
        os.execvp(arguments.command[0], arguments.command)
    return _run_torchrun(arguments)


def torchrun_options(arguments: argparse.Namespace) -> list[str]:
    """How torchrun's agents meet (torch 2.13); nobody restarts anything, that is the Job's business."""
    if arguments.nodes == 1:
        # torchrun's own guess of the address is the host's full name, which need not resolve.
        meeting = ["--standalone", "--local-addr=127.0.0.1"]
    else:
        # The default kind of rendezvous ignores which node is which.
        address, _, port = arguments.master.rpartition(":")
        meeting = ["--rdzv-backend=static", f"--nnodes={arguments.nodes}", f"--node-rank={arguments.node}"]
        meeting += [f"--master-addr={address}", f"--master-port={port}"]
    return [*meeting, "--max-restarts=0", f"--nproc-per-node={arguments.processes}", "--no-python"]


def _run_torchrun(arguments: argparse.Namespace) -> int:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError  # noqa: PLC0415
    from torch.distributed.run import parse_args, run  # noqa: PLC0415

    ends: Path = arguments.ends
    try:
        run(parse_args([*torchrun_options(arguments), *wrapped(arguments.command)]))  # type: ignore[no-untyped-call]
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
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--node", type=int, default=0)
    parser.add_argument("--master", default="", help="ADDRESS:PORT of node 0")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
