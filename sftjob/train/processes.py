"""What Linux offers for a supervisor that leaves nobody behind: death signals, a subreaper, the process tree."""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from sftjob.errors import ConfigurationError

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_PROC: Final = Path("/proc")


def become_subreaper() -> None:
    """Orphaned descendants become this process's children, in whatever session they are (prctl(2))."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int | None = None) -> None:
    """SIGKILL for this process as soon as its parent ends; survives exec (PR_SET_PDEATHSIG of prctl(2)).

    "Parent" is the thread that forked: start such a child from a thread that lives as long as it should.

    Args:
        parent: process id that the parent had when it forked. If it is gone already, this process ends here.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def descendants(root: int) -> frozenset[int]:
    """Process ids of all children of `root`, their children, and so on; zombies included."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    frontier = [root]
    while frontier:
        below = children.get(frontier.pop(), [])
        found.update(below)
        frontier.extend(below)
    return frozenset(found)


def kill_descendants(*, keep: frozenset[int] = frozenset(), seconds: float = 2.0) -> frozenset[int]:
    """Kills and reaps every descendant of this process except `keep`, in rounds, until none is left.

    Rounds, because a process may fork between the look and the signal, and orphans become visible as children only
    when their parent is dead.

    Returns:
        Those still there after `seconds`: a process that waits for a device cannot be killed.
    """
    deadline = time.monotonic() + seconds
    while left := descendants(os.getpid()) - keep:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            return left
        time.sleep(0.005)
    return frozenset()


def _prctl(option: int, value: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "prctl"):
        raise ConfigurationError("training needs Linux (prctl)", hint="run it in the training image")
    if library.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _parents() -> Iterator[tuple[int, int]]:
    """(process id, parent's process id) of every process that is there."""
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(FileNotFoundError, ProcessLookupError):
            # The command's name, in parentheses, may contain anything: the fields start after the last one.
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            yield int(entry.name), int(fields[1])
