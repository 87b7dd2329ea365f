"""`python -m sftjob.gate`: PID 1 of the gate's pod.

It ends with 0 when the evaluation has ended or none will come; 66 when objects or `_SUCCESS` that should be there are
not; 75 on SIGTERM (its Job starts another pod, which goes on); 64, 77 and 78 when asking again repairs nothing.
"""

import os
import signal

if __name__ == "__main__":
    # PID 1 has no default action: a SIGTERM is lost until there is a handler, and the imports below take a second.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from sftjob.container import leave_message, open_root, read_spec
from sftjob.contract import ExitCode
from sftjob.errors import SftjobError
from sftjob.gate.loop import Ending, watch
from sftjob.gate.settings import LOOK_SECONDS, Settings, read_settings
from sftjob.spec import run_id


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    """Runs the gate of one run; returns the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    ending = _ending(options)
    if ending.code is not ExitCode.DONE:
        for line in ending.reason.splitlines():
            print(f"error: {line}", file=sys.stderr, flush=True)
    leave_message(ending.code, ending.reason)
    return ending.code


def _ending(options: argparse.Namespace) -> Ending:
    try:
        return _watched(read_settings(os.environ, spec=options.spec, look_seconds=options.look_seconds))
    except SftjobError as error:
        return Ending(error.exit_code, str(error))
    except KeyboardInterrupt:
        return Ending(ExitCode.INTERRUPTED, "the gate was stopped; its next pod goes on")
    except Exception as error:  # a bug: the table's code instead of Python's 1
        traceback.print_exc()
        return Ending(ExitCode.CRASH, f"{type(error).__name__}: {error}")


def _watched(settings: Settings) -> Ending:
    # Some of the official client's modules cost a moment; a wrong spec is told without them.
    from sftjob.cluster.api import connect  # noqa: PLC0415

    spec = read_spec(settings.spec)
    store = open_root(spec, settings.storage_uri).at(run_id(spec))
    return watch(settings, connect(namespace=settings.namespace), store)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sftjob.gate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", type=Path, help="the authored spec as JSON (default: the variable of the pod)")
    parser.add_argument("--look-seconds", type=float, default=LOOK_SECONDS, help="between two looks (default: 10)")
    return parser


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # PID 1 of a container has no default action for SIGTERM and would sit out the grace period.
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
