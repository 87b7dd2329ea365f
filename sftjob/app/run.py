"""`sftjob run`: train and evaluate on this machine, by the very processes that run in pods."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sftjob.app.machine import local_gpus
from sftjob.app.phase import run_phase
from sftjob.app.pin import PinnedJob, pin_for_machine
from sftjob.contract import Env, ExitCode, keys
from sftjob.errors import InputMissing
from sftjob.records import Evaluation, Export, read_record
from sftjob.spec import LoadedSpec, canonical_spec
from sftjob.storage import ObjectStore, fetch_files, open_store

TRAINING: Final = "sftjob.train"
EVALUATION: Final = "sftjob.app.evaluation"


class PhaseFailed(Exception):
    """A phase has told its own error already; only its exit code is left to pass on."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"ended with {exit_code}")
        self.exit_code = exit_code


@dataclass(frozen=True)
class FinishedRun:
    """A run whose weights are durable."""

    run_id: str
    store: ObjectStore
    """The run's own part of the store."""
    evaluated: bool

    @property
    def uri(self) -> str:
        return self.store.uri

    @property
    def export_uri(self) -> str:
        """Where the final weights lie."""
        return f"{self.uri}/{keys.export(self._export().attempt)}"

    def evaluation(self) -> Evaluation:
        """Scores and answers of base and tuned model.

        Raises:
            InputMissing: the run was not evaluated.
        """
        from sftjob.report import load_evaluation  # noqa: PLC0415 - a run without evaluation needs no report

        return load_evaluation(self.store)

    def save(self, folder: Path) -> Path:
        """Fetches the final weights, tokenizer and template, every file verified, and returns `folder`."""
        fetch_files(self.store, self._export().files, folder)
        return folder

    def _export(self) -> Export:
        return read_record(Export, self.store.get_bytes(keys.SUCCESS), keys.SUCCESS)


def run(
    loaded: LoadedSpec, *, new_run: bool = False, evaluate: bool = True, echo: Callable[[str], None] = print
) -> FinishedRun:
    """Trains what the spec says on this machine's GPUs, or on its CPU, and compares the result with the base model.

    The same spec is the same run: called again, it continues where the last commit left off, or finds all of it done.

    Args:
        loaded: as `sftjob.spec.load_spec` reads it.
        new_run: start over under another id.
        evaluate: score the tuned model and the base.
        echo: is given lines for people.

    Raises:
        SftjobError: the spec or an input is wrong; with file and line.
        PhaseFailed: a phase ended with an error, which it has printed.
    """
    job = pin_for_machine(loaded, local_gpus(), new_run=new_run, progress=echo)
    for note in job.notes:
        echo(f"note: {note}")
    storage = job.spec.storage
    root = open_store(job.storage_uri, endpoint_url=storage.endpoint_url, region=storage.region)
    store = root.at(job.run_id)
    echo(f"run {job.run_id}: {store.uri}")
    environment = _environment(job)
    for module in (TRAINING, EVALUATION) if evaluate else (TRAINING,):
        code = run_phase(module, environment)
        if code != ExitCode.DONE:
            raise PhaseFailed(code)
    return FinishedRun(run_id=job.run_id, store=store, evaluated=evaluate)


def _environment(job: PinnedJob) -> dict[str, str]:
    """Writes the pinned spec into the run's work folder and says where everything is."""
    work = work_folder(job)
    work.mkdir(parents=True, exist_ok=True)
    spec = work / "authored.json"
    spec.write_bytes(canonical_spec(job.spec))
    processes = job.spec.launch.local_processes
    threads = max(1, (os.cpu_count() or 1) // processes)
    return {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        Env.SPEC: str(spec),
        Env.WORK: str(work),
        Env.INPUTS: json.dumps({sha256: str(path) for sha256, path in job.inputs.items()}),
        Env.DIE_WITH_PARENT: "1",
    }


def work_folder(job: PinnedJob) -> Path:
    """Scratch of a local run: the same for the same run in the same store, so that a lock in it means something."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    where = hashlib.sha256(job.storage_uri.encode()).hexdigest()[:8]
    return cache / "sftjob" / "work" / f"{job.run_id}-{where}"


def find_run(reference: str, load: Callable[[Path], LoadedSpec]) -> ObjectStore:
    """The store of a run that a person names by its spec file, folder or `s3://…/<run_id>`.

    Raises:
        InputMissing: there is no such run.
    """
    if reference.startswith("s3://"):
        return open_store(reference)
    path = Path(reference)
    if path.is_dir():
        return open_store(str(path.absolute()))
    if not path.is_file():
        raise InputMissing("no such spec file or run folder", file=reference, hint="name a spec, a folder or s3://…")
    job = pin_for_machine(load(path), local_gpus(), progress=lambda _line: None)
    storage = job.spec.storage
    return open_store(job.storage_uri, endpoint_url=storage.endpoint_url, region=storage.region).at(job.run_id)
