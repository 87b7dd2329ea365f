"""The last objects of an attempt: the export and `_SUCCESS`, the pod's result, and the release of the run."""

import hashlib
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sftjob.contract import ExitCode, JobAction, keys
from sftjob.errors import Exists, Superseded
from sftjob.records import Export, MergedModel
from sftjob.spec import METHOD_RULES
from sftjob.storage import ensure_current, list_files, release, upload_files
from sftjob.train.attempt import Attempt, now, say
from sftjob.train.fault import fault
from sftjob.train.merge import MERGED, run_merge
from sftjob.train.publish import amount, check_whole
from sftjob.train.verdict import Verdict


def publish_export(attempt: Attempt, step: int, merge: Sequence[str] | None = None) -> None:
    """Uploads the final weights and says so in `_SUCCESS`, which is their manifest and is written last.

    The hash of the chat template goes along: the template is a part of what was trained.

    Args:
        merge: makes a merged model before anything is uploaded, `--work DIR` appended; None where none is asked for.

    Raises:
        ConfigurationError: a merged model would not be what was trained; nothing was published.
        Superseded: a newer attempt has taken over, or has finished the run; nothing was said.
        StorageError: a file is damaged, or the store does not answer.
    """
    store, job = attempt.store, attempt.job
    merged = None if merge is None else _publish_merged(attempt, merge)
    begin = time.monotonic()
    files = list_files(attempt.work.export)
    check_whole(files)
    fault("export-upload")
    entries = upload_files(store, attempt.work.export, files, keys.export(attempt.number))
    fault("export-success")
    ensure_current(store, attempt.number)
    export = Export(
        run_id=job.run_id,
        attempt=attempt.number,
        step=step,
        method=job.method.type,
        adapter=METHOD_RULES[job.method.type].adapter,
        files=entries,
        merged=merged,
        template_sha256=_template_sha256(attempt.work.export),
        time=now(),
    )
    try:
        store.put_bytes(keys.SUCCESS, export.to_json(), if_absent=True)
    except Exists as error:
        raise Superseded("another attempt has finished this run", file=keys.SUCCESS) from error
    say(f"exported step {step} ({amount(entries)}, {time.monotonic() - begin:.1f} s)")


def record_result(attempt: Attempt, verdict: Verdict, log_tail: bytes) -> None:
    """Stores how this pod ended. Call it when no process of the attempt is left here.

    Raises:
        SftjobError: the store refuses or does not answer.
    """
    store, key = attempt.store, keys.result(attempt.number, attempt.index)
    if log_tail:
        store.put_bytes(keys.log_tail(attempt.number, attempt.index), log_tail)
    # What a successor has said of this pod stands: its peers have acted on it.
    with suppress(Exists):
        store.put_bytes(key, attempt.result(verdict).to_json(), if_absent=attempt.job.launch.nodes > 1)


def record_end(attempt: Attempt, verdict: Verdict) -> None:
    """Stores how the attempt ended, and lets go of the run. For pod 0.

    Raises:
        SftjobError: the store refuses or does not answer.
    """
    store, result = attempt.store, attempt.result(verdict)
    if verdict.code.action is JobAction.FAIL_JOB and verdict.code is not ExitCode.HELD:
        store.put_bytes(keys.FAILED, result.to_json())
    release(store, attempt.number, result)


def _publish_merged(attempt: Attempt, command: Sequence[str]) -> MergedModel:
    folder, parity = run_merge(attempt.work, command)
    files = list_files(folder)
    check_whole(files)
    ensure_current(attempt.store, attempt.number)
    entries = upload_files(attempt.store, folder, files, keys.export(attempt.number, MERGED))
    say(f"exported the merged model ({amount(entries)})")
    return MergedModel(files=entries, parity=parity)


def _template_sha256(export: Path) -> str:
    path = export / "chat_template.jinja"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
