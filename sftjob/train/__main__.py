"""`python -m sftjob.train`: PID 1 of a training pod, and the child that `sftjob run` starts."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from sftjob.contract import Env, ExitCode
from sftjob.errors import SftjobError
from sftjob.train.processes import die_with_parent
from sftjob.train.settings import Settings, read_settings
from sftjob.train.supervisor import supervise
from sftjob.train.verdict import Verdict, verdict_of

TERMINATION_LOG: Final = Path("/dev/termination-log")
"""Kubernetes shows its content as the container's message (terminationMessagePath); at most 4096 bytes."""
_REASON_BYTES: Final = 1900
"""Twice as many when all of them are escaped in JSON."""


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
        _leave_message(verdict)
    return verdict.code


def _supervised(arguments: argparse.Namespace) -> Verdict:
    try:
        settings: Settings = read_settings(os.environ, spec=arguments.spec, work=arguments.work)
    except SftjobError as error:
        return verdict_of(error)
    if settings.die_with_parent:
        die_with_parent()
    return supervise(settings)


def _leave_message(verdict: Verdict) -> None:
    if not TERMINATION_LOG.is_file():
        return
    reason = verdict.reason.encode()[:_REASON_BYTES].decode(errors="ignore")
    message = {"exit_code": verdict.code, "reason": reason, "step": verdict.step}
    try:
        TERMINATION_LOG.write_text(json.dumps(message, ensure_ascii=False))
    except OSError as error:
        print(f"{TERMINATION_LOG} was not written: {error.strerror}", file=sys.stderr)


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
