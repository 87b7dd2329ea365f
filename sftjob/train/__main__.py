"""`python -m sftjob.train`: PID 1 of a training pod, and the child that `sftjob run` starts."""

import os
import signal

if __name__ == "__main__":
    # PID 1 has no default action: a SIGTERM is lost until there is a handler, and the imports below take a second.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(76))

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sftjob.container import leave_message
from sftjob.contract import Env, ExitCode
from sftjob.errors import SftjobError
from sftjob.train.processes import die_with_parent
from sftjob.train.settings import Settings, read_settings
from sftjob.train.supervisor import supervise
from sftjob.train.verdict import Verdict, verdict_of


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs one attempt and tells people how it ended.

    Returns:
        The process's exit code.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    arguments = _parser().parse_args(argv)
    verdict = _supervised(arguments)
    if verdict.code is not ExitCode.DONE:
        for line in (verdict.reason or verdict.code.meaning).splitlines():
            print(f"error: {line}", file=sys.stderr, flush=True)
        leave_message(verdict.code, verdict.reason, step=verdict.step)
    return verdict.code


def _supervised(arguments: argparse.Namespace) -> Verdict:
    try:
        settings: Settings = read_settings(os.environ, spec=arguments.spec, work=arguments.work)
    except SftjobError as error:
        return verdict_of(error)
    if settings.die_with_parent:
        die_with_parent()
    return supervise(settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sftjob.train", description=__doc__)
    parser.add_argument("--spec", type=Path, help=f"the authored spec as JSON (default: ${Env.SPEC})")
    parser.add_argument("--work", type=Path, help=f"folder for everything local (default: ${Env.WORK})")
    return parser


if __name__ == "__main__":
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    # Not sys.exit: a thread that hangs in the network must not keep the process, and nothing may be sent after this.
    os._exit(code)
