"""`sftjob stage`: local data, models and templates where pods find them, and the spec that names them by content.

An input lies at `<storage.uri>/inputs/<sha256>/…`; `<sha256>.json` beside that folder is written when all of it is
there. Several people may stage the same input at once: they write the same bytes under the same keys.
"""

import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sftjob.app.pin import PinnedJob
from sftjob.app.stores import open_root
from sftjob.app.transfer import Transfer, as_bytes
from sftjob.contract import keys
from sftjob.errors import InputMissing, NotFound, SftjobError, StorageError, Unavailable
from sftjob.inputs import Entry, combined_hash, hash_input, model_entries, pin_local, silent
from sftjob.records import FileEntry, StagedInput, read_record
from sftjob.render import manifests_yaml
from sftjob.report.words import plural
from sftjob.spec import (
    JobSpec,
    LoadedSpec,
    PinnedData,
    PinnedModel,
    Profile,
    authored,
    canonical_json,
    parse_spec_json,
)
from sftjob.storage import ObjectStore
from sftjob.storage.threads import in_order

Progress = Callable[[str], None]
_THREADS: Final = 2
"""Files at a time. A large file travels in several parts at once already."""


@dataclass(frozen=True)
class _Input:
    """A local input on its way to the store."""

    source: PinnedModel | PinnedData
    path: Path
    root: ObjectStore
    progress: Progress

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def sha256(self) -> str:
        return self.source.sha256


def pin_for_cluster(loaded: LoadedSpec, *, new_run: bool = False, progress: Progress = silent) -> PinnedJob:
    """The spec as pods get it: local inputs by their hashes, nothing else changed.

    Args:
        new_run: sets another `salt`, so that the spec is a run of its own.

    Raises:
        SftjobError: an input is missing or wrong, with file and line.
    """
    spec = loaded.spec
    if new_run:
        salted = {**authored(spec), "salt": secrets.token_hex(8)}
        spec = parse_spec_json(canonical_json(salted), loaded.file)
    try:
        pinned, inputs = pin_local(spec, loaded.folder, progress=progress)
    except SftjobError as error:
        raise loaded.located(error) from error
    return PinnedJob(spec=pinned, inputs=inputs, notes=())


def stage(
    loaded: LoadedSpec,
    profile: Profile,
    *,
    endpoint_url: str | None = None,
    verify: bool = False,
    progress: Progress = silent,
) -> str:
    """Uploads a spec's local inputs and returns the spec that names them by content, as YAML.

    Args:
        loaded: the spec.
        profile: says where the store is, where the spec does not.
        endpoint_url: of the store as this machine reaches it.
        verify: read back what is there already, and send again what is damaged.
        progress: is given lines for people.

    Raises:
        SftjobError: an input is missing or wrong, with file and line, or the store cannot be used.
    """
    job = pin_for_cluster(loaded, progress=progress)
    try:
        root = open_root(job.spec, profile, endpoint_url=endpoint_url)
    except SftjobError as error:
        raise loaded.located(error) from error
    if not _pinned(job.spec):
        progress("staged   nothing: the spec names nothing that only this machine has")
    stage_inputs(job, root, verify=verify, progress=progress)
    note = f"{loaded.file} with its inputs by content, which `sftjob stage` has put under {root.uri}/inputs"
    return pinned_yaml(job.spec, note=note)


def stage_inputs(job: PinnedJob, root: ObjectStore, *, verify: bool = False, progress: Progress = silent) -> int:
    """Uploads what the store lacks of a job's inputs.

    Args:
        job: as `pin_for_cluster` gives it.
        root: the store at `<storage.uri>`.
        verify: read back what is there, and send again what is damaged.
        progress: is given lines for people.

    Returns:
        Bytes that were sent.

    Raises:
        InputMissing: an input has changed since it was pinned, or is named by its hash and nobody has staged it.
        Denied, StorageError: the store refuses or does not answer.
    """
    sent = 0
    for source in _pinned(job.spec):
        path = job.inputs.get(source.sha256)
        if path is None:
            _require_staged(source, root)
            continue
        sent += _stage(_Input(source, path, root, progress), verify=verify)
    return sent


def pinned_yaml(spec: JobSpec, *, note: str) -> str:
    """The spec as a file that every command takes as it takes the original; `note` is its first line, for people."""
    return f"# {note}\n{manifests_yaml([authored(spec)])}"


def _pinned(spec: JobSpec) -> list[PinnedModel | PinnedData]:
    """Each input once; the same content under two names is two files."""
    sources = (spec.model, *spec.data.train, *spec.data.eval)
    pinned = [source for source in sources if isinstance(source, PinnedModel | PinnedData)]
    return list({(source.sha256, source.name): source for source in pinned}.values())


def _require_staged(source: PinnedModel | PinnedData, root: ObjectStore) -> None:
    if _manifest(root, source.sha256) is None:
        raise InputMissing(
            f"{source.name} is known by its content alone ({source.sha256[:12]}…), which is not staged in {root.uri}",
            hint="stage the spec that names it by its path: sftjob stage SPEC",
        )


def _stage(given: _Input, *, verify: bool) -> int:
    """Bytes that were sent."""
    known = _manifest(given.root, given.sha256)
    sizes = _sizes(given)
    wanted = _promised(given, known)
    if not verify and wanted and all(sizes.get(name) == size for name, size, _ in wanted):
        given.progress(f"staged   {given.name} is there already ({_bytes(wanted)})")
        return 0
    wanted = _entries(given)
    lacking = [entry for entry in wanted if not _is_there(given, entry, sizes, verify=verify)]
    _send(given, lacking)
    _check(given, wanted)
    _write_manifest(given, known, wanted)
    given.progress(f"staged   {given.name} ({_bytes(wanted)}, {_bytes(lacking)} of it sent)")
    return sum(size for _, size, _ in lacking)


def _manifest(root: ObjectStore, sha256: str) -> StagedInput | None:
    key = keys.input_manifest(sha256)
    try:
        return read_record(StagedInput, root.get_bytes(key), key)
    except NotFound as error:
        if error.problems[0].field:  # the bucket itself is not there
            raise
        return None


def _sizes(given: _Input) -> dict[str, int]:
    """What lies in the input's folder, in bytes by name."""
    prefix = keys.input(given.sha256)
    return {info.key.removeprefix(prefix): info.size for info in given.root.list(prefix)}


def _promised(given: _Input, known: StagedInput | None) -> tuple[Entry, ...]:
    """What the store's own manifest says of this input; nothing where it does not speak of it."""
    entries = tuple((file.path, file.size, file.sha256) for file in known.files) if known else ()
    if isinstance(given.source, PinnedModel):
        return entries if entries and combined_hash(entries) == given.sha256 else ()
    return tuple(entry for entry in entries if entry[0] == given.name and entry[2] == given.sha256)


def _entries(given: _Input) -> tuple[Entry, ...]:
    """What is to be there, read from this machine's files."""
    if isinstance(given.source, PinnedModel):
        entries = model_entries(given.path, progress=given.progress)
        found = combined_hash(entries)
    else:
        found = hash_input(given.path, progress=given.progress)
        entries = ((given.name, given.path.stat().st_size, found),)
    if found != given.sha256:
        raise InputMissing(
            f"{given.name} ({given.path}) has changed while it was read", hint="wait until it is whole, then try again"
        )
    return entries


def _is_there(given: _Input, entry: Entry, sizes: dict[str, int], *, verify: bool) -> bool:
    name, size, sha256 = entry
    if sizes.get(name) != size:
        return False
    key = keys.input(given.sha256, name)
    if not verify:
        return given.root.head(key).sha256 == sha256
    what = given.name if name == given.name else f"{given.name}/{name}"
    given.progress(f"reading  {what} back ({as_bytes(size)})")
    with tempfile.TemporaryDirectory(prefix="sftjob-verify-") as folder:
        try:
            given.root.get_file(key, Path(folder, "file"), size=size, sha256=sha256)
        except Unavailable:
            raise
        except StorageError as error:
            given.progress(f"damaged  {error}")
            return False
    return True


def _send(given: _Input, lacking: Sequence[Entry]) -> None:
    if lacking:
        given.progress(f"sending  {given.name} ({_bytes(lacking)} in {plural(len(lacking), 'file')})")
    transfer = Transfer(given.progress, f"sending  {given.name}", sum(size for _, size, _ in lacking))

    def send(entry: Entry) -> None:
        name, _, sha256 = entry
        path = given.path / name if isinstance(given.source, PinnedModel) else given.path
        given.root.put_file(keys.input(given.sha256, name), path, sha256=sha256, on_sent=transfer.add)

    for _ in in_order(send, lacking, threads=_THREADS):
        pass


def _check(given: _Input, wanted: Sequence[Entry]) -> None:
    """The hashes were checked while the bytes were sent; whether the store has them all is asked of the store."""
    sizes = _sizes(given)
    for name, size, _ in wanted:
        if sizes.get(name) != size:
            raise StorageError(
                f"has {sizes.get(name, 0)} bytes instead of {size} after it was sent",
                file=f"{given.root.uri}/{keys.input(given.sha256, name)}",
                hint="stage it again",
            )


def _write_manifest(given: _Input, known: StagedInput | None, wanted: Sequence[Entry]) -> None:
    files = {file.path: file for file in known.files} if known and isinstance(given.source, PinnedData) else {}
    for name, size, sha256 in wanted:
        files[name] = FileEntry(path=name, key=keys.input(given.sha256, name), size=size, sha256=sha256)
    record = StagedInput(sha256=given.sha256, files=tuple(files[name] for name in sorted(files)))
    given.root.put_bytes(keys.input_manifest(given.sha256), record.to_json())


def _bytes(entries: Sequence[Entry]) -> str:
    return as_bytes(sum(size for _, size, _ in entries))
