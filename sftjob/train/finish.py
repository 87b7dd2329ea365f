"""The last objects of an attempt: the export and `_SUCCESS`, the pod's result, and the release of the run."""

import hashlib
import time
from pathlib import Path

from sftjob.contract import ExitCode, JobAction, keys
from sftjob.errors import Exists, Superseded
from sftjob.records import Export
from sftjob.spec import METHOD_RULES
from sftjob.storage import ensure_current, list_files, release, upload_files
from sftjob.train.attempt import Attempt, now, say
from sftjob.train.fault import fault
from sftjob.train.publish import amount, check_whole
from sftjob.train.verdict import Verdict


def publish_export(attempt: Attempt, step: int) -> None:
    """Uploads the final weights and says so in `_SUCCESS`, which is their manifest and is written last.

    The hash of the chat template goes along: the template is a part of what was trained.

    Raises:
        Superseded: a newer attempt has taken over, or has finished the run; nothing was said.
        StorageError: a file is damaged, or the store does not answer.
    """
    begin = time.monotonic()
    store, job = attempt.store, attempt.job
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
        template_sha256=_template_sha256(attempt.work.export),
        time=now(),
    )
    try:
        store.put_bytes(keys.SUCCESS, export.to_json(), if_absent=True)
    except Exists as error:
        raise Superseded("another attempt has finished this run", file=keys.SUCCESS) from error
    say(f"exported step {step} ({amount(entries)}, {time.monotonic() - begin:.1f} s)")


def record_end(attempt: Attempt, verdict: Verdict, log_tail: bytes) -> None:
    """Stores how the attempt ended, and lets go of the run. Call it when no process of the attempt is left.

    Raises:
        SftjobError: the store refuses or does not answer.
    """
    store, result = attempt.store, attempt.result(verdict)
    if log_tail:
        store.put_bytes(keys.log_tail(attempt.number, attempt.index), log_tail)
    store.put_bytes(keys.result(attempt.number, attempt.index), result.to_json())
    if verdict.code.action is JobAction.FAIL_JOB and verdict.code is not ExitCode.HELD:
        store.put_bytes(keys.FAILED, result.to_json())
    release(store, attempt.number, result)


def _template_sha256(export: Path) -> str:
    path = export / "chat_template.jinja"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
