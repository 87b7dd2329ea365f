"""One model under one prompt format: scored on the held-out rows, and asked the questions."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sftjob.data.masks import Encoded
from sftjob.data.tokenizer import ChatTokenizer
from sftjob.errors import Diverged
from sftjob.evaluate.generate import generate
from sftjob.evaluate.match import matches
from sftjob.evaluate.questions import PromptFormat, Question, answer_text, prompt_ids, stop_token_ids
from sftjob.evaluate.scoring import score_rows
from sftjob.methods import Model
from sftjob.records import Answer, Score

OnProgress = Callable[[str, int, int], None]
"""Called with what is done (`scored`, `answered`), how many, and of how many."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every model of an evaluation is put through."""

    tokenizer: ChatTokenizer
    questions: tuple[Question, ...]
    answer_pattern: re.Pattern[str] | None
    max_new_tokens: int
    batch_size: int
    context: int | None
    """Longest sequence that the model takes, in tokens; longer prompts lose their beginning."""


def evaluate_model(
    model: Model,
    task: Task,
    rows: Sequence[Encoded],
    *,
    name: str,
    prompt_format: PromptFormat,
    on_progress: OnProgress,
) -> tuple[Score | None, tuple[Answer, ...]]:
    """Scores the rows and answers the questions.

    Args:
        model: in evaluation mode.
        task: what to ask, and how.
        rows: the held-out rows encoded under `prompt_format`; without a trained token there is no score.
        name: `base` or `tuned`, for the records.

    Raises:
        Diverged: the loss is not finite.
    """
    answers = _answers(model, task, name=name, prompt_format=prompt_format, on_progress=on_progress)
    if not rows:
        return None, answers
    scores = score_rows(
        model,
        rows,
        batch_size=task.batch_size,
        pad_token_id=task.tokenizer.pad_token_id,
        on_progress=lambda done, total: on_progress("scored", done, total),
    )
    if not scores.trained_tokens:  # every answer was cut off by `max_length`
        return None, answers
    if not math.isfinite(scores.loss):
        raise Diverged(f"the {name} model's loss on the held-out rows is {scores.loss}", hint="lower the learning rate")
    compared = [answer.match for answer in answers if answer.match is not None]
    score = Score(
        model=name,
        prompt_format=prompt_format,
        rows=len(rows),
        trained_tokens=scores.trained_tokens,
        loss=scores.loss,
        perplexity=scores.perplexity,
        token_accuracy=scores.token_accuracy,
        generated=len(compared),
        exact_match=sum(compared) / len(compared) if compared else None,
    )
    return score, answers


def _answers(
    model: Model, task: Task, *, name: str, prompt_format: PromptFormat, on_progress: OnProgress
) -> tuple[Answer, ...]:
    room = task.context - task.max_new_tokens if task.context else None
    prompts = [prompt_ids(task.tokenizer, question, prompt_format) for question in task.questions]
    new = generate(
        model,
        [ids[-room:] if room else ids for ids in prompts],
        batch_size=task.batch_size,
        max_new_tokens=task.max_new_tokens,
        stop_token_ids=stop_token_ids(task.tokenizer, prompt_format),
        pad_token_id=task.tokenizer.pad_token_id,
        on_progress=lambda done, total: on_progress("answered", done, total),
    )
    texts = [answer_text(task.tokenizer, ids, prompt_format) for ids in new]
    return tuple(
        Answer(
            id=question.id,
            model=name,
            prompt_format=prompt_format,
            prompt=question.text,
            reference=question.reference,
            answer=text,
            match=None if question.reference is None else matches(text, question.reference, task.answer_pattern),
        )
        for question, text in zip(task.questions, texts, strict=True)
    )
