"""`sftjob merge`: a finished run's adapter and its base as one model, made as the training container would make it."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sftjob.app.machine import local_gpus
from sftjob.app.pin import pin_for_machine
from sftjob.app.run import find_run
from sftjob.contract import keys
from sftjob.errors import ConfigurationError, InputMissing, NotFound, SpecError
from sftjob.model_source import fetch_model
from sftjob.records import Export, FileEntry, MergeParity, PreparedData, read_record
from sftjob.resolve import read_resolved
from sftjob.resolved import ResolvedExport
from sftjob.spec import LoadedSpec, ModelSource, PinnedModel
from sftjob.storage import ObjectStore, fetch_files, open_store
from sftjob.storage.local import local_errors
from sftjob.train.merge import run_merge
from sftjob.train.workdir import RankInput, WorkDir

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A finished run, and where its base may be."""

    store: ObjectStore
    """At the run."""
    root: ObjectStore
    """At `<storage.uri>`."""
    inputs: Mapping[str, Path] = field(default_factory=dict)
    endpoint_url: str | None = None
    region: str | None = None


def merge_run(
    reference: str,
    output: Path,
    load: Callable[[Path], LoadedSpec],
    *,
    model: Path | None = None,
    tolerance: float | None = None,
    progress: Progress,
) -> MergeParity:
    """Writes a finished run's merged model: the one that it has published, or one that is made here.

    Args:
        reference: spec file, run folder or `s3://…/<run_id>`.
        output: a folder that is not there yet; whatever fails leaves nothing behind.
        load: reads a spec file.
        model: the base model's folder, where the run knows it only by its hash.
        tolerance: largest difference of logits, instead of that of the run.
        progress: is given lines for people.

    Returns:
        What the merged model was compared with.

    Raises:
        SpecError: `output` is there already.
        InputMissing: the run has not finished, or its base cannot be found.
        ConfigurationError: there is no adapter to merge, or the merged model would not be what was trained.
    """
    if output.exists():
        raise SpecError("is there already", file=str(output), hint="name a folder that is not there yet")
    source = _find(reference, load)
    export = _export(source.store)
    if export.merged is not None and tolerance is None:
        progress(f"fetching the merged model that {export.run_id} has published")
        fetch_files(source.store, export.merged.files, output)
        return export.merged.parity
    work = WorkDir(output.absolute().with_name(f".{output.name}.merging"))
    with local_errors(work.root):
        shutil.rmtree(work.root, ignore_errors=True)
        work.root.mkdir(parents=True)
    try:
        _stage(source, export, work, model=model, tolerance=tolerance, progress=progress)
        merged, parity = run_merge(work)
        with local_errors(output):
            merged.rename(output)
    finally:
        shutil.rmtree(work.root, ignore_errors=True)
    return parity


def _find(reference: str, load: Callable[[Path], LoadedSpec]) -> _Source:
    if not Path(reference).is_file():
        store = find_run(reference, load)
        return _Source(store=store, root=open_store(store.uri.rpartition("/")[0]))
    job = pin_for_machine(load(Path(reference)), local_gpus(), progress=lambda _line: None)
    storage = job.spec.storage
    root = open_store(job.storage_uri, endpoint_url=storage.endpoint_url, region=storage.region)
    return _Source(
        store=root.at(job.run_id),
        root=root,
        inputs=job.inputs,
        endpoint_url=storage.endpoint_url,
        region=storage.region,
    )


def _export(store: ObjectStore) -> Export:
    try:
        export = read_record(Export, store.get_bytes(keys.SUCCESS), keys.SUCCESS)
    except NotFound as error:
        if error.problems[0].field:  # the bucket itself is not there
            raise
        raise InputMissing(
            "training has not finished", file=f"{store.uri}/{keys.SUCCESS}", hint="merge when it is done"
        ) from error
    if not export.adapter:
        raise ConfigurationError(
            f"{export.run_id} is a whole model ({export.method}); there is no adapter to merge",
            file=store.uri,
            hint="use its export as it is",
        )
    return export


def _stage(
    source: _Source,
    export: Export,
    work: WorkDir,
    *,
    model: Path | None,
    tolerance: float | None,
    progress: Progress,
) -> None:
    """A work folder as a training leaves it to the merge."""
    store = source.store
    job = read_resolved(store.get_bytes(keys.SPEC), keys.SPEC)
    data_key = keys.attempt_data(export.attempt)
    prepared = read_record(PreparedData, store.get_bytes(data_key), data_key)
    progress(f"fetching the adapter of {export.run_id} and its base")
    fetch_files(store, export.files, work.export)
    fetch_files(store, _rows(prepared), work.data)
    given = RankInput(
        attempt=export.attempt,
        node=0,
        model=_base(source, job.model, work, model=model, progress=progress),
        data=work.data,
        vocab_size=prepared.vocab_size,
        added_token_ids=prepared.added_token_ids,
        export=_asked(tolerance),
    )
    work.job.write_bytes(job.to_json())
    work.rank_input.write_bytes(given.to_json())


def _base(source: _Source, base: ModelSource, work: WorkDir, *, model: Path | None, progress: Progress) -> Path:
    inputs = dict(source.inputs)
    if model is not None:
        if not isinstance(base, PinnedModel):
            raise SpecError("the run knows where its base is", field="--model", hint="leave it out")
        inputs[base.sha256] = model.absolute()
    try:
        return fetch_model(
            base,
            work.model,
            store_root=source.root,
            inputs=inputs,
            progress=progress,
            endpoint_url=source.endpoint_url,
            region=source.region,
        )
    except InputMissing as error:
        if not isinstance(base, PinnedModel) or base.sha256 in inputs:
            raise
        raise InputMissing(
            f"the base {base.name} is known by its content alone, and not in the store",
            field="model",
            hint="name its folder: --model DIR",
        ) from error


def _asked(tolerance: float | None) -> ResolvedExport:
    return ResolvedExport(merge=True) if tolerance is None else ResolvedExport(merge=True, merge_tolerance=tolerance)


def _rows(prepared: PreparedData) -> list[FileEntry]:
    """The rows that logits are compared on: held-out ones where there are any."""
    files = {entry.path: entry for entry in prepared.files}
    return [files["eval.arrow"] if "eval.arrow" in files else files["train.arrow"]]
