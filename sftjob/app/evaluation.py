"""`python -m sftjob.app.evaluation`: the eval container's entrypoint. Scores base and tuned model, then reports.

Every model's result is stored as soon as it is there, so that an evaluation that was killed continues with the next
model. What needs no torch is checked before torch is imported.
"""

import os
import signal

if __name__ == "__main__":
    # PID 1 has no default action: a SIGTERM is lost until there is a handler, and the imports below take a second.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(75))

import argparse
import logging
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

from sftjob.app.evaluation_inputs import (
    HeldOut,
    check_lengths,
    fetch_held_out,
    held_out_digest,
    read_held_out,
)
from sftjob.app.evaluation_record import PARTS, Part, evaluation_record, read_shard, shard_bytes
from sftjob.app.subject import Subject, find_subject
from sftjob.container import leave_message, open_root, read_spec
from sftjob.contract import Env, ExitCode, keys
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import SftjobError
from sftjob.evaluate.match import compile_answer_pattern
from sftjob.evaluate.questions import Question, check_prompts, questions
from sftjob.model_source import fetch_model
from sftjob.records import EvaluationManifest, FileEntry, ShardHeader
from sftjob.report import report
from sftjob.spec import sha256_hex
from sftjob.storage import ObjectStore, fetch_files
from sftjob.storage.base import exists
from sftjob.train.processes import die_with_parent
from sftjob.train.settings import Settings, read_settings

Progress = Callable[[str], None]
_REPORTS: Final = ("report.md", "report.html", "report.json")


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Everything that is known before a model is loaded."""

    subject: Subject
    tokenizer: ChatTokenizer
    held_out: HeldOut
    questions: tuple[Question, ...]
    answer_pattern: re.Pattern[str] | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluates the run that a spec describes; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sftjob.app.evaluation", description=__doc__)
    parser.add_argument("--spec", type=Path, help=f"the spec as JSON ({Env.SPEC})")
    parser.add_argument("--work", type=Path, help=f"a writable folder ({Env.WORK})")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    # PEFT imports it, and it advises to install a package that loads code from a hub.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    code, reason = _evaluated(options)
    if code is not ExitCode.DONE:
        leave_message(code, reason)
    return code


def _evaluated(options: argparse.Namespace) -> tuple[ExitCode, str]:
    """How it ended, and why where it did not end well; it has been told."""
    try:
        settings = read_settings(os.environ, spec=options.spec, work=options.work)
        if settings.die_with_parent:
            die_with_parent()
        evaluate_run(settings, progress=_print)
    except SftjobError as error:
        print("\n".join(f"error: {problem}" for problem in error.problems), file=sys.stderr)
        return error.exit_code, str(error)
    except KeyboardInterrupt:
        reason = "evaluation interrupted: models that were done stay done; start it again to go on"
        print(reason, file=sys.stderr)
        return ExitCode.INTERRUPTED, reason
    except Exception as error:  # a bug, or a machine that fails: the table's code instead of Python's 1
        traceback.print_exc()
        return ExitCode.CRASH, f"{type(error).__name__}: {error}"
    return ExitCode.DONE, ""


def evaluate_run(settings: Settings, *, progress: Progress) -> None:
    """Evaluates a finished run and stores record and reports under eval/<eval_id>/; does nothing when they are there.

    Raises:
        SpecError: the evaluation block cannot be done with this model.
        InputMissing: training has not finished, or the base model is not there.
        StorageError: the store does not answer, or something in it is not what it was.
    """
    spec = read_spec(settings.spec)
    root = open_root(spec, settings.storage_uri)
    subject = find_subject(spec, root)
    if exists(subject.store, keys.evaluation(subject.eval_id, keys.SUCCESS)):
        progress(f"evaluation {subject.eval_id} of {subject.job.run_id} is finished already")
        return
    plan = _plan(subject, settings.work / "evaluation" / "data")
    rows, prompts = len(plan.held_out.rows), len(plan.questions)
    progress(f"evaluation {subject.eval_id} of {subject.job.run_id}: {rows} held-out rows, {prompts} prompts")
    missing = [part for part in PARTS if not exists(subject.store, part.key(subject.eval_id))]
    if missing:
        _evaluate(plan, missing, settings, root, progress=progress)
    _finish(plan, progress)


def _plan(subject: Subject, folder: Path) -> _Plan:
    """Reads what is asked and checks that it can be."""
    evaluation = subject.spec.evaluation
    generation = evaluation.generation
    pattern = compile_answer_pattern(generation.answer_pattern)
    check_lengths(subject)
    tokenizer = ChatTokenizer.from_folder(fetch_held_out(subject, folder))
    check_prompts(tokenizer, generation.prompts)
    held_out = read_held_out(folder, evaluation.max_rows)
    return _Plan(
        subject=subject,
        tokenizer=tokenizer,
        held_out=held_out,
        questions=questions(generation.prompts, held_out.rows[: generation.held_out_rows]),
        answer_pattern=pattern,
    )


def _evaluate(plan: _Plan, parts: Sequence[Part], settings: Settings, root: ObjectStore, *, progress: Progress) -> None:
    """Evaluates the parts and stores each one's shard at once."""
    from sftjob.app.evaluation_models import evaluate_parts, make_task  # noqa: PLC0415 - torch, only where it is needed

    subject, folder = plan.subject, settings.work / "evaluation"
    fetch_files(subject.store, subject.export.files, folder / "export")
    storage = subject.spec.storage
    base_folder = fetch_model(
        subject.job.model,
        folder / "model",
        store_root=root,
        inputs=settings.inputs,
        progress=progress,
        endpoint_url=storage.endpoint_url,
        region=storage.region,
        cache=settings.cache,
    )
    task = make_task(subject, plan.tokenizer, plan.questions, plan.answer_pattern)
    done = evaluate_parts(
        parts,
        subject,
        task,
        plan.held_out,
        base_folder=base_folder,
        export_folder=folder / "export",
        progress=progress,
    )
    for part, score, answers in done:
        header = ShardHeader(model=part.model, prompt_format=part.prompt_format, score=score)
        subject.store.put_bytes(part.key(subject.eval_id), shard_bytes(header, answers))


def _finish(plan: _Plan, progress: Progress) -> None:
    """Writes record and reports, and _SUCCESS last."""
    subject = plan.subject
    shards = [read_shard(subject.store, part.key(subject.eval_id)) for part in PARTS]
    evaluation = evaluation_record(subject, shards, held_out_digest=held_out_digest(plan.held_out, plan.questions))
    written = report([evaluation])
    contents = (evaluation.to_json(), *(text.encode() for text in (written.markdown, written.html, written.json)))
    files = [_put(subject, name, data) for name, data in zip(("scores.json", *_REPORTS), contents, strict=True)]
    manifest = EvaluationManifest(
        run_id=subject.job.run_id,
        eval_id=subject.eval_id,
        files=tuple(files),
        # Finer than a second: the newest of a run's evaluations is found by it.
        time=datetime.now(UTC).isoformat(timespec="microseconds"),
    )
    subject.store.put_bytes(keys.evaluation(subject.eval_id, keys.SUCCESS), manifest.to_json())
    progress(f"report: {subject.store.uri}/{keys.evaluation(subject.eval_id, _REPORTS[0])}")
    progress(written.document.lead)


def _put(subject: Subject, name: str, data: bytes) -> FileEntry:
    key = keys.evaluation(subject.eval_id, name)
    subject.store.put_bytes(key, data)
    return FileEntry(path=name, key=key, size=len(data), sha256=sha256_hex(data))


def _print(line: str) -> None:
    print(line, flush=True)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    # PID 1 of a container has no default action for SIGTERM and would sit out the grace period.
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
