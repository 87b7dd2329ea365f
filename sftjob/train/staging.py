"""Everything ranks need, put where they look for it, before any of them starts."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sftjob.errors import DiskFull
from sftjob.model_source import fetch_model
from sftjob.records import Commit
from sftjob.storage import restore_latest
from sftjob.storage.local import local_errors
from sftjob.train.attempt import Attempt, say
from sftjob.train.opening import Run
from sftjob.train.prepared import PREPARE, DataInputs, provide_data
from sftjob.train.settings import Settings
from sftjob.train.workdir import RankInput

_FULL_COPIES: Final = 7
"""Model sizes on disk that full fine-tuning needs: two checkpoints of weights and two Adam moments, and the export."""
_ADAPTER_COPIES: Final = 0.1


def stage(attempt: Attempt, run: Run, settings: Settings, *, prepare: Sequence[str] = PREPARE) -> Commit | None:
    """Fetches the model, provides the data, restores the newest checkpoint and writes the ranks' input files.

    Returns:
        The COMMIT that the ranks continue from; None for a fresh start.

    Raises:
        SftjobError: whatever is missing, wrong, refused or too large, with its own exit code.
    """
    work, job = attempt.work, attempt.job
    with local_errors(work.root):
        _clear(attempt)
        work.job.write_bytes(job.to_json())
    say("fetching model …")
    storage = run.spec.storage
    model = fetch_model(
        job.model,
        work.model,
        store_root=run.root,
        inputs=settings.inputs,
        progress=say,
        endpoint_url=storage.endpoint_url,
        region=storage.region,
    )
    _check_space(attempt, model)
    prepared = provide_data(attempt, DataInputs(run, model, settings.inputs, prepare))
    commit = restore_latest(
        attempt.store, work.resume, spec_sha256=job.sha256(), world_size=job.launch.world_size, warn=say
    )
    if commit:
        say(f"continuing from step {commit.step} (attempt {commit.attempt})")
    rank_input = RankInput(
        attempt=attempt.number,
        node=attempt.index,
        model=model,
        data=work.data,
        vocab_size=prepared.vocab_size,
        added_token_ids=prepared.added_token_ids,
        resume=work.resume if commit else None,
    )
    work.rank_input.write_bytes(rank_input.to_json())
    return commit


def _clear(attempt: Attempt) -> None:
    """Removes what an earlier attempt has left here: its marks would be taken for this one's."""
    work = attempt.work
    for path in (work.checkpoints, work.resume, work.export, work.result(0).parent):
        shutil.rmtree(path, ignore_errors=True)
    for path in (work.preempt, work.metrics, work.environment, work.exported, work.rank_input):
        path.unlink(missing_ok=True)
    for path in (work.checkpoints, work.result(0).parent):
        path.mkdir(parents=True)


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
