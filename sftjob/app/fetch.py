"""`sftjob fetch`: a run's weights and report out of the store, every file verified."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sftjob.app.profiles import find_profile
from sftjob.app.run import find_run
from sftjob.app.stage import pin_for_cluster
from sftjob.app.stores import open_from_here, open_root
from sftjob.app.transfer import Transfer, as_bytes
from sftjob.app.where import Where
from sftjob.contract import keys
from sftjob.errors import InputMissing, NotFound, SpecError
from sftjob.inputs import silent
from sftjob.records import Export, FileEntry, read_record
from sftjob.report.load import newest_evaluation
from sftjob.report.words import plural
from sftjob.spec import LoadedSpec, Profile, Storage
from sftjob.storage import ObjectStore, fetch_files, open_store
from sftjob.storage.base import exists
from sftjob.storage.local import local_errors

Progress = Callable[[str], None]
_SPEC_SUFFIXES: Final = (".yaml", ".yml", ".json")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What is on this machine now."""

    run_id: str
    folder: Path
    parts: tuple[str, ...]
    """Folders in it: `adapter` or `model`, `merged`, `report`."""


def fetch(
    reference: str,
    output: Path | None,
    where: Where,
    load: Callable[[Path], LoadedSpec],
    *,
    report_only: bool = False,
    progress: Progress = silent,
) -> Fetched:
    """Fetches what a run has published into a folder, which appears when all of it is there and right.

    Args:
        reference: run id, spec file, run folder or `s3://…/<run_id>`.
        output: the folder, not there yet; without it one that is called like the run.
        where: profile, cluster and the store's address from here.
        load: reads a spec file.
        report_only: leave the weights where they are.
        progress: is given lines for people.

    Raises:
        SpecError: the folder is there already.
        InputMissing: no such run, or it has published nothing yet.
        StorageError: a file is not what it was, or the store does not answer; nothing is left behind.
    """
    store = _find(reference, where, load, progress)
    export = _export(store)
    folder = output or Path(export.run_id)
    if folder.exists():
        raise SpecError("is there already", file=str(folder), hint="name a folder that is not there yet: -o DIR")
    parts = _parts(store, export, report_only=report_only, progress=progress)
    # Beside it, so that the rename is one on the same file system; the name is fixed so that leftovers cannot pile up.
    partial = folder.absolute().with_name(f".{folder.name}.fetching")
    with local_errors(partial):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    try:
        for name, files in parts.items():
            _fetch_part(store, files, partial / name, progress)
        with local_errors(folder):
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Fetched(run_id=export.run_id, folder=folder, parts=tuple(parts))


def _find(reference: str, where: Where, load: Callable[[Path], LoadedSpec], progress: Progress) -> ObjectStore:
    """The run's own part of the store."""
    path = Path(reference)
    if path.is_dir():
        return open_store(str(path.absolute()))
    profile = find_profile(where.profile, progress=progress)
    if reference.startswith("s3://"):
        uri, _, run = reference.rstrip("/").rpartition("/")
        return open_from_here(uri, Storage(), profile, endpoint_url=where.endpoint_url).at(run)
    if path.is_file() or reference.endswith(_SPEC_SUFFIXES):
        return _of_spec(reference, profile, where, load)
    return _of_id(reference, profile, where, progress)


def _of_spec(reference: str, profile: Profile, where: Where, load: Callable[[Path], LoadedSpec]) -> ObjectStore:
    loaded = load(Path(reference))
    if (loaded.spec.storage.uri or profile.storage.uri or "").startswith("s3://"):
        job = pin_for_cluster(loaded)
        store = open_root(job.spec, profile, endpoint_url=where.endpoint_url).at(job.run_id)
        if next(store.list(), None) is not None:
            return store
    # `sftjob run` writes this machine's own GPUs into the spec: that is another run.
    here = find_run(reference, load)
    if next(here.list(), None) is None:
        raise InputMissing("this spec has not been run", file=reference, hint=f"sftjob submit {reference}")
    return here


def _of_id(run_id: str, profile: Profile, where: Where, progress: Progress) -> ObjectStore:
    """By the profile's store, which outlives the Jobs; else by what the cluster's objects say."""
    if profile.storage.uri:
        root = open_from_here(profile.storage.uri, Storage(), profile, endpoint_url=where.endpoint_url)
        store = root.at(run_id)
        if exists(store, keys.SPEC):
            return store
    # Who fetches from a store needs no cluster, nor its client.
    from sftjob.app.run_target import find_target, open_run_store  # noqa: PLC0415
    from sftjob.cluster.runs import load_run  # noqa: PLC0415

    target = find_target(run_id, where, progress=progress)
    return open_run_store(target, load_run(target.cluster, target.run_id))


def _export(store: ObjectStore) -> Export:
    try:
        return read_record(Export, store.get_bytes(keys.SUCCESS), keys.SUCCESS)
    except NotFound as error:
        if error.problems[0].field:  # the bucket itself is not there
            raise
        run = store.uri.rpartition("/")[2]
        raise InputMissing(
            "training has not finished", file=f"{store.uri}/{keys.SUCCESS}", hint=f"sftjob status {run}"
        ) from error


def _parts(
    store: ObjectStore, export: Export, *, report_only: bool, progress: Progress
) -> dict[str, tuple[FileEntry, ...]]:
    parts: dict[str, tuple[FileEntry, ...]] = {}
    if not report_only:
        parts["adapter" if export.adapter else "model"] = export.files
        if export.merged is not None:
            parts["merged"] = export.merged.files
    evaluation = newest_evaluation(store)
    if evaluation is not None:
        parts["report"] = evaluation.files
    elif report_only:
        raise InputMissing("no finished evaluation", file=store.uri, hint=f"sftjob status {export.run_id}")
    else:
        progress("note     there is no report: no evaluation of this run has finished")
    return parts


def _fetch_part(store: ObjectStore, files: Sequence[FileEntry], folder: Path, progress: Progress) -> None:
    total = sum(file.size for file in files)
    progress(f"fetching {folder.name} ({as_bytes(total)} in {plural(len(files), 'file')})")
    transfer, through = Transfer(progress, f"fetching {folder.name}", total), 0

    def reach(done: int, _total: int) -> None:
        nonlocal through
        transfer.add(done - through)
        through = done

    fetch_files(store, files, folder, on_progress=reach)
