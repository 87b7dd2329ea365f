"""The tokens a run trains on: prepared once, kept in the store under their content's hash, used by every attempt."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sftjob.contract import keys
from sftjob.data.digest import data_digest, tokenizer_digest
from sftjob.data.inputs import InputFile, PrepareInput, input_files
from sftjob.errors import CrashError, Problem, SftjobError, StorageError, Unavailable
from sftjob.inputs import fetch_data
from sftjob.records import PreparedData, read_record
from sftjob.spec import FileData
from sftjob.storage import ObjectStore, ensure_current, fetch_files, hash_file, upload_files
from sftjob.train.attempt import Attempt, say
from sftjob.train.launcher import wrapped
from sftjob.train.membership import wait_for
from sftjob.train.opening import Run

PREPARE: Final[tuple[str, ...]] = (sys.executable, "-m", "sftjob.data.prepare")
_MANIFEST: Final = "manifest.json"


@dataclass(frozen=True)
class DataInputs:
    """Where data and model are, and what prepares them."""

    run: Run
    model: Path
    inputs: Mapping[str, Path]
    """{sha256: path} of pinned files that this machine has."""
    command: Sequence[str] = PREPARE
    """`--work DIR` is appended."""


def provide_data(attempt: Attempt, given: DataInputs) -> PreparedData:
    """Puts prepared data into the work folder: the run's own from the store, or newly made and then stored.

    Raises:
        DataError, ConfigurationError, InputMissing: as the data or the tokenizer deserve; files and lines are named.
        Superseded: a newer attempt has taken over; nothing was stored.
    """
    files = {
        split: tuple(
            input_files(getattr(attempt.job.data, split), split, lambda source: _fetch(source, attempt, given))
        )
        for split in ("train", "eval")
    }
    hashes = [hash_file(file.path) if file.path else None for split in files.values() for file in split]
    digest = data_digest(attempt.job, hashes, tokenizer_digest(given.model))
    prepared = _stored(attempt, digest)
    if prepared is None:
        say("preparing data …")
        _prepare(attempt, given, files, digest)
        prepared = _publish(attempt, digest)
    ensure_current(attempt.store, attempt.number)
    attempt.store.put_bytes(keys.attempt_data(attempt.number), prepared.to_json(), if_absent=True)
    for split, counts in prepared.splits.items():
        say(f"{split}: {counts.kept:,} of {counts.rows:,} rows, {counts.trained_tokens:,} trained tokens")
    return prepared


def follow_data(attempt: Attempt, *, look_seconds: float) -> PreparedData:
    """Puts the data that pod 0 has named for this attempt into the work folder; waits for them.

    Raises:
        StorageError: they are damaged; the next attempt makes them again.
    """
    key = keys.attempt_data(attempt.number)
    prepared = read_record(PreparedData, wait_for(attempt.store, key, look_seconds=look_seconds), key)
    fetch_files(attempt.store, prepared.files, attempt.work.data)
    return prepared


def _fetch(source: FileData, attempt: Attempt, given: DataInputs) -> tuple[Path, str]:
    storage = given.run.spec.storage
    return fetch_data(
        source,
        attempt.work.root / "inputs",
        store_root=given.run.root,
        inputs=given.inputs,
        endpoint_url=storage.endpoint_url,
        region=storage.region,
    )


def _stored(attempt: Attempt, digest: str) -> PreparedData | None:
    """Fetched and verified; None where there is none, or none that is whole."""
    for key in _manifests(attempt.store, digest):
        try:
            prepared = read_record(PreparedData, attempt.store.get_bytes(key), key)
            fetch_files(attempt.store, prepared.files, attempt.work.data)
        except Unavailable:
            raise
        except StorageError as error:
            say(f"the prepared data of {key} are damaged and made again: {error}")
        else:
            say("using the data that an earlier attempt has prepared")
            return prepared
    return None


def _manifests(store: ObjectStore, digest: str) -> list[str]:
    found = (info.key for info in store.list(f"data/{digest}/"))
    return sorted((key for key in found if key.endswith(f"/{_MANIFEST}")), reverse=True)


def _prepare(attempt: Attempt, given: DataInputs, files: Mapping[str, tuple[InputFile, ...]], digest: str) -> None:
    work = attempt.work.root
    request = PrepareInput(
        train=files["train"],
        eval=files["eval"],
        model=given.model,
        out=attempt.work.data,
        attempt=attempt.number,
        digest=digest,
    )
    (work / "prepare.json").write_bytes(request.to_json())
    (work / "prepare.error").unlink(missing_ok=True)
    # In a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone; it dies with this thread.
    with (work / "prepare.stderr").open("w+b") as stderr:
        process = subprocess.run(
            wrapped([*given.command, "--work", str(work)]), stderr=stderr, start_new_session=True, check=False
        )
    if process.returncode != 0:
        raise _prepare_error(work, process.returncode)


def _prepare_error(work: Path, code: int) -> SftjobError:
    try:
        problems = [Problem(reason=line) for line in (work / "prepare.error").read_text().splitlines() if line]
    except FileNotFoundError:
        sys.stderr.write((work / "prepare.stderr").read_text(errors="replace"))
        how = f"was killed by signal {-code} (out of memory?)" if code < 0 else f"ended with code {code}"
        return CrashError(f"preparing data {how}", hint="see the lines above")
    classes = {int(error.exit_code): error for error in SftjobError.__subclasses__()}
    return classes.get(code, CrashError)(problems)


def _publish(attempt: Attempt, digest: str) -> PreparedData:
    """The manifest goes last: without it the files do not exist."""
    store, folder = attempt.store, attempt.work.data
    path = folder / "prepared.json"
    prepared = read_record(PreparedData, path.read_bytes(), str(path))
    ensure_current(store, attempt.number)
    prefix = keys.data(digest, attempt.number)
    uploaded = upload_files(store, folder, [folder / entry.path for entry in prepared.files], prefix)
    if set(uploaded) != set(prepared.files):
        raise StorageError("the prepared data changed on disk", file=str(folder), hint="start again")
    store.put_bytes(prefix + _MANIFEST, prepared.to_json(), if_absent=True)
    return prepared
