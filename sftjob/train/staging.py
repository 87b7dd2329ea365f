"""Everything ranks need, put where they look for it, before any of them starts."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sftjob.contract import keys
from sftjob.errors import DiskFull
from sftjob.model_source import fetch_model
from sftjob.records import Commit, Start, read_record
from sftjob.resolve import resolve_export
from sftjob.storage import restore_latest, restore_step
from sftjob.storage.local import local_errors
from sftjob.train.attempt import Attempt, say
from sftjob.train.membership import await_all_ready, wait_for
from sftjob.train.opening import Run
from sftjob.train.prepared import PREPARE, DataInputs, follow_data, provide_data
from sftjob.train.settings import Settings
from sftjob.train.workdir import RankInput

_FULL_COPIES: Final = 7
"""Model sizes on disk that full fine-tuning needs: two checkpoints of weights and two Adam moments, and the export."""
_ADAPTER_COPIES: Final = 0.1


def stage(attempt: Attempt, run: Run, settings: Settings, *, prepare: Sequence[str] = PREPARE) -> Commit | None:
    """Fetches the model, provides the data, restores the newest checkpoint and writes the ranks' input files.

    On several nodes pod 0 prepares the data and decides which checkpoint all continue from; the others follow it, and
    no pod returns before all are ready.

    Returns:
        The COMMIT that the ranks continue from; None for a fresh start.

    Raises:
        SftjobError: whatever is missing, wrong, refused or too large, with its own exit code.
        Hang: a peer does not get ready in time.
    """
    work, job, look_seconds = attempt.work, attempt.job, settings.look_seconds
    with local_errors(work.root):
        _clear(attempt)
        work.job.write_bytes(job.to_json())
    model = _model(attempt, run, settings)
    _check_space(attempt, model)
    if attempt.index == 0:
        prepared = provide_data(attempt, DataInputs(run, model, settings.inputs, prepare))
        commit = _restore(attempt)
    else:
        prepared = follow_data(attempt, look_seconds=look_seconds)
        commit = _restore_as_told(attempt, look_seconds=look_seconds)
    if commit:
        say(f"continuing from step {commit.step} (attempt {commit.attempt})")
    rank_input = RankInput(
        attempt=attempt.number,
        node=attempt.index,
        model=model,
        data=work.data,
        vocab_size=prepared.vocab_size,
        train_rows=prepared.splits["train"].prepared,
        added_token_ids=prepared.added_token_ids,
        resume=work.resume if commit else None,
        monitoring=run.spec.monitoring,
        export=resolve_export(run.spec.export),
    )
    work.rank_input.write_bytes(rank_input.to_json())
    if job.launch.nodes > 1:
        await_all_ready(attempt, look_seconds=look_seconds, patience_seconds=settings.patience_seconds)
    return commit


def _clear(attempt: Attempt) -> None:
    """Removes what an earlier attempt has left here: its marks would be taken for this one's."""
    work = attempt.work
    for path in (work.checkpoints, work.resume, work.export, work.tensorboard, work.result(0).parent):
        shutil.rmtree(path, ignore_errors=True)
    for path in (work.preempt, work.metrics, work.environment, work.exported, work.rank_input):
        path.unlink(missing_ok=True)
    for path in (work.checkpoints, work.result(0).parent):
        path.mkdir(parents=True)


def _model(attempt: Attempt, run: Run, settings: Settings) -> Path:
    say("fetching model …")
    storage = run.spec.storage
    return fetch_model(
        attempt.job.model,
        attempt.work.model,
        store_root=run.root,
        inputs=settings.inputs,
        progress=say,
        endpoint_url=storage.endpoint_url,
        region=storage.region,
        cache=settings.cache,
    )


def _restore(attempt: Attempt) -> Commit | None:
    """The newest checkpoint that is whole; peers are told which it is, so that none chooses another."""
    job = attempt.job
    commit = restore_latest(
        attempt.store, attempt.work.resume, spec_sha256=attempt.spec_sha256, world_size=job.launch.world_size, warn=say
    )
    if job.launch.nodes > 1:
        start = Start(attempt=attempt.number, step=commit.step if commit else None)
        attempt.store.put_bytes(keys.start(attempt.number), start.to_json(), if_absent=True)
    return commit


def _restore_as_told(attempt: Attempt, *, look_seconds: float) -> Commit | None:
    job, key = attempt.job, keys.start(attempt.number)
    start = read_record(Start, wait_for(attempt.store, key, look_seconds=look_seconds), key)
    if start.step is None:
        return None
    return restore_step(
        attempt.store,
        start.step,
        attempt.work.resume,
        spec_sha256=attempt.spec_sha256,
        world_size=job.launch.world_size,
    )


def _check_space(attempt: Attempt, model: Path) -> None:
    size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    needed = size * (_FULL_COPIES if attempt.job.method.type == "full" else _ADAPTER_COPIES)
    free = shutil.disk_usage(attempt.work.root).free
    if free < needed:
        raise DiskFull(
            f"{free / 1e9:.1f} GB are free, checkpoints and export need about {needed / 1e9:.1f} GB",
            file=str(attempt.work.root),
            field="resources.ephemeral_storage",
            hint="give the job more, or use another folder",
        )
