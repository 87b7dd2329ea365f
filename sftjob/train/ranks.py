"""The ranks of one node: how they start, what they print, how they are stopped, and how each of them ended."""

import codecs
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from pydantic import ValidationError

from sftjob.train.launcher import NodePlace, torchrun, wrapped
from sftjob.train.processes import descendants, kill_descendants
from sftjob.train.stop import StopRequest
from sftjob.train.verdict import RankEnd
from sftjob.train.workdir import RankResult, WorkDir

WORKER: Final[tuple[str, ...]] = (sys.executable, "-m", "sftjob.train.worker")
"""What a rank runs; `--work DIR` is appended, and `--bar` where a terminal will show what it prints."""
LOG_TAIL_BYTES: Final = 64 * 2**10


class Ranks:
    """Local processes of one attempt, in a session of their own: a terminal's Ctrl-C does not reach them.

    Start and use it from the main thread: its processes are bound to the life of the thread that forks them.
    """

    def __init__(
        self, command: Sequence[str], work: WorkDir, *, processes: int, place: NodePlace | None = None
    ) -> None:
        """Starts them.

        Args:
            command: of each; `--work DIR` is appended.
            work: the node's folder.
            processes: on this node.
            place: this node among several.
        """
        self._work = work
        self._processes = processes
        self._first = place.index * processes if place else 0
        self._ends_file = work.root / "results" / "torchrun.json"
        self._others = descendants(os.getpid())
        self._terminated = False
        bar = ("--bar",) if sys.stdout.isatty() else ()
        arguments = (*command, "--work", str(work.root), *bar)
        self._process = subprocess.Popen(
            wrapped(arguments, parent=os.getpid())
            if processes == 1
            else torchrun(arguments, processes=processes, ends=self._ends_file, parent=os.getpid(), place=place),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(processes, place),
        )
        assert self._process.stdout is not None
        self._log = _Log(self._process.stdout, work.root / "ranks.log")

    def ended(self) -> bool:
        return self._process.poll() is not None

    def press(self, stop: StopRequest) -> None:
        """Does what is due by now after a request to stop; call it again and again."""
        if not stop.requested:
            return
        self._work.preempt.touch()
        if stop.hurried or stop.seconds > stop.grace.kill:
            self.kill()
        elif stop.seconds > stop.grace.terminate and self._processes > 1 and not self._terminated:
            self._terminated = True
            self._process.terminate()

    def kill(self) -> frozenset[int]:
        """Kills every process that has come into being below this one since the start, and reaps it.

        Returns:
            Those that could not be killed.
        """
        survivors = kill_descendants(keep=self._others)
        self._process.wait()
        return survivors

    def ends(self) -> tuple[RankEnd, ...]:
        """How each rank of this node ended."""
        seen = self._exit_codes()
        ranks = range(self._first, self._first + self._processes)
        return tuple(RankEnd(rank, _read_result(self._work.result(rank)), seen.get(rank)) for rank in ranks)

    def log_tail(self) -> bytes:
        """The last 64 KiB that the ranks have printed."""
        return self._log.tail()

    def _exit_codes(self) -> dict[int, int]:
        if self._processes == 1:
            return {self._first: self._process.wait()}
        if not self._ends_file.exists():
            return {}
        return {int(rank): code for rank, code in json.loads(self._ends_file.read_bytes()).items()}


class _Log:
    """Copies what ranks print to stdout and to a file, and remembers the end of it."""

    def __init__(self, source: IO[bytes], path: Path) -> None:
        self._source = source
        self._path = path
        self._tail: deque[bytes] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._copy, name="log", daemon=True)
        self._thread.start()

    def tail(self) -> bytes:
        self._thread.join(timeout=1)  # the end of the file comes with the death of the last writer
        with self._lock:
            return b"".join(self._tail)[-LOG_TAIL_BYTES:]

    def _copy(self) -> None:
        decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        with self._source, self._path.open("wb", buffering=0) as file:
            while chunk := os.read(self._source.fileno(), 8192):
                self._remember(chunk)
                # A full disk or a closed terminal must not stop the reading: ranks would block on a full pipe.
                with suppress(OSError):
                    file.write(chunk)
                with suppress(OSError, ValueError):
                    sys.stdout.write(decode(chunk))
                    sys.stdout.flush()

    def _remember(self, chunk: bytes) -> None:
        with self._lock:
            self._tail.append(chunk)
            self._size += len(chunk)
            while self._size - len(self._tail[0]) > LOG_TAIL_BYTES:
                self._size -= len(self._tail.popleft())


def _environment(processes: int, place: NodePlace | None) -> dict[str, str]:
    """Ours, unbuffered so that lines come in time; a node's only rank, which needs no torchrun, gets its variables.

    With one rank a node torchrun would add nothing but processes that can fail: rank 0 holds the rendezvous itself.
    """
    common = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if processes > 1:
        return common
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    if place is None:
        return {**common, **alone}
    meeting = {"MASTER_ADDR": place.master_addr, "MASTER_PORT": str(place.master_port)}
    return {**common, **alone, **meeting, "RANK": str(place.index), "WORLD_SIZE": str(place.nodes)}


def _read_result(path: Path) -> RankResult | None:
    try:
        return RankResult.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None  # a rank that was killed while it wrote has left no result
