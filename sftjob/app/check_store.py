"""`python -m sftjob.app.check_store`: whether a pod can keep a run where its spec says. `helm test` runs it.

It reads what training pods read, tries the store as they do, and leaves nothing there. No torch, no cluster.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sftjob.container import open_root, read_spec
from sftjob.contract import SPEC_FILE, Env, ExitCode, Mount, keys
from sftjob.errors import SftjobError
from sftjob.spec import run_id
from sftjob.storage import list_commits, probe
from sftjob.storage.base import exists


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    """Prints what was proved, line by line; returns the exit code of the first thing that was not."""
    parser = argparse.ArgumentParser(prog="python -m sftjob.app.check_store", description=__doc__)
    parser.add_argument("--spec", type=Path, help=f"the authored spec as JSON (default: ${Env.SPEC})")
    spec: Path | None = parser.parse_args(arguments).spec
    spec = spec or Path(os.environ.get(Env.SPEC) or Path(Mount.SPEC, SPEC_FILE))
    try:
        check_store(spec, os.environ.get(Env.STORAGE_URI), tell=_print)
    except SftjobError as error:
        print("\n".join(f"error: {problem}" for problem in error.problems), file=sys.stderr)
        return error.exit_code
    return ExitCode.DONE


def check_store(file: Path, storage_uri: str | None, *, tell: Callable[[str], None]) -> None:
    """Reads a spec and tries its store.

    Args:
        file: the authored spec as JSON.
        storage_uri: where runs live when the spec does not say.

    Raises:
        SpecError: the spec is wrong or no store is named.
        InputMissing: there is no spec.
        Denied, NotFound, Unavailable: the store refuses, is not there, does not answer.
        ConfigurationError: the store has no conditional writes.
    """
    spec = read_spec(file)
    run = run_id(spec)
    tell(f"the spec is valid: run {run}")
    root = open_root(spec, storage_uri)
    probe(root, single_writer=spec.storage.single_writer)
    tell(f"{root.uri} can be listed, written, read and deleted")
    if spec.storage.single_writer:
        tell("conditional writes were not tried: the spec says storage.single_writer")
    else:
        tell("of eight who created one object at once, one has won: two Jobs cannot hold one run")
    store = root.at(run)
    trained = "is trained" if exists(store, keys.SUCCESS) else "is not trained to its end"
    tell(f"the run {trained} and has {len(list_commits(store))} commits")


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
