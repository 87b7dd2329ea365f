"""Loads base and tuned model, one at a time, and has them evaluated. Importing this imports torch."""

import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from transformers.utils import logging as transformers_logging

from sftjob.app.evaluation_inputs import HeldOut
from sftjob.app.evaluation_record import Part
from sftjob.app.subject import Subject
from sftjob.data.lengths import fit_length
from sftjob.data.masks import Encoded
from sftjob.data.plain import encode_plain, encode_text
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import CrashError
from sftjob.evaluate.model import OnProgress, Task, evaluate_model
from sftjob.evaluate.questions import HeldOutRow, PromptFormat, Question
from sftjob.methods import Model, fine_tuning, load_base, load_tuned
from sftjob.records import Answer, Score

PROGRESS_SECONDS: Final = 5.0
Progress = Callable[[str], None]


def make_task(
    subject: Subject, tokenizer: ChatTokenizer, asked: tuple[Question, ...], answer_pattern: re.Pattern[str] | None
) -> Task:
    """What every model is put through."""
    evaluation = subject.spec.evaluation
    return Task(
        tokenizer=tokenizer,
        questions=asked,
        answer_pattern=answer_pattern,
        max_new_tokens=evaluation.generation.max_new_tokens,
        batch_size=evaluation.batch_size,
        context=subject.job.facts.max_position_embeddings,
    )


def evaluate_parts(
    parts: Sequence[Part],
    subject: Subject,
    task: Task,
    held_out: HeldOut,
    *,
    base_folder: Path,
    export_folder: Path,
    progress: Progress,
) -> Iterator[tuple[Part, Score | None, tuple[Answer, ...]]]:
    """Yields each part as soon as it is done; each model is loaded once.

    Raises:
        CrashError: the device's memory does not suffice.
        ConfigurationError, InputMissing: a model cannot be loaded.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: Mapping[PromptFormat, Sequence[Encoded]] = {
        "template": held_out.encoded,
        "plain": [_plain(task.tokenizer, row, subject.job.training.max_length) for row in held_out.rows],
    }
    for name in dict.fromkeys(part.model for part in parts):
        with _memory(device):
            with _quiet():
                model = _load(name, subject, base_folder, export_folder).to(device).eval()
            for part in (part for part in parts if part.model == name):
                score, answers = evaluate_model(
                    model,
                    task,
                    rows[part.prompt_format],
                    name=name,
                    prompt_format=part.prompt_format,
                    on_progress=_lines(part, progress),
                )
                yield part, score, answers
            del model


def _plain(tokenizer: ChatTokenizer, row: HeldOutRow, max_length: int) -> Encoded:
    if row.text is None:
        return encode_plain(tokenizer, row.messages, max_length)
    [encoded] = fit_length(encode_text(tokenizer, row.text), max_length, "truncate")
    return encoded


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a bar for each model, and without what libraries tell each other about deprecations."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _load(name: str, subject: Subject, base_folder: Path, export_folder: Path) -> Model:
    """In the dtype of the training, with the training's own rows for new tokens.

    The tuned model stands on the base that it was trained on, quantised or not; the base model is what it is.
    """
    job = subject.job
    method, precision = fine_tuning(job.method), job.training.precision
    dtype = method.base_dtype(precision)
    vocab_size, seed = subject.prepared.vocab_size, job.training.seed
    if name == "base":
        return load_base(base_folder, vocab_size=vocab_size, dtype=dtype, seed=seed)
    return load_tuned(
        base_folder,
        export_folder,
        vocab_size=vocab_size,
        dtype=dtype,
        seed=seed,
        quantization=method.quantization(precision),
    )


@contextmanager
def _memory(device: torch.device) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise CrashError(
            f"the memory of {device} does not suffice",
            field="evaluation.batch_size",
            hint="halve it and evaluate again",
        ) from error
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _lines(part: Part, progress: Progress) -> OnProgress:
    """A line every few seconds and one at the end."""
    last = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            progress(f"{part.model}, {part.prompt_format}: {what} {done} of {total}")

    return tell
