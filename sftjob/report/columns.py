"""Who stands beside whom in a report: the base under its prompt formats, then each run's tuned model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sftjob.records import Answer, Evaluation, Score

Format = Literal["template", "plain"]
FORMATS: Final[tuple[Format, ...]] = ("plain", "template")


@dataclass(frozen=True)
class Column:
    """One model of the headline table."""

    label: str
    score: Score | None
    run: Evaluation | None = None
    """None for a base, which was not trained here."""


def columns(evaluations: Sequence[Evaluation]) -> tuple[Column, ...]:
    """The base's columns are the first run's: the others scored the same base on the same rows."""
    first = evaluations[0]
    bases = tuple(
        Column(f"base ({form})", find_score(first, "base", form)) for form in FORMATS if _has_base(first, form)
    )
    labelled = zip(run_labels(evaluations), evaluations, strict=True)
    return bases + tuple(Column(label, find_score(run, "tuned", "template"), run) for label, run in labelled)


def run_labels(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """`tuned` for one run; else the runs' names, or their ids where names repeat."""
    if len(evaluations) == 1:
        return ("tuned",)
    names = tuple(run.name for run in evaluations)
    return names if len(set(names)) == len(names) else tuple(run.run_id for run in evaluations)


def find_score(evaluation: Evaluation, model: str, prompt_format: Format) -> Score | None:
    found = (s for s in evaluation.scores if s.model == model and s.prompt_format == prompt_format)
    return next(found, None)


def base_format(evaluation: Evaluation) -> Format:
    """The prompt format that suits the base best: more exact matches, then less loss. A report is fair to the base."""
    scores = [score for score in evaluation.scores if score.model == "base"]
    if not scores:
        return "plain" if _has_base(evaluation, "plain") else "template"
    return min(scores, key=lambda score: (-(score.exact_match or 0.0), score.loss)).prompt_format


def _has_base(evaluation: Evaluation, form: Format) -> bool:
    parts: Iterable[Score | Answer] = (*evaluation.scores, *evaluation.answers)
    return any(part.model == "base" and part.prompt_format == form for part in parts)
