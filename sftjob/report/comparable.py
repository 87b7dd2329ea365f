"""Refuses to compare runs whose numbers do not mean the same."""

from collections.abc import Iterator, Sequence
from typing import Final

from sftjob.errors import Problem, SpecError
from sftjob.records import Evaluation

_EVALUATION_HINT: Final = "evaluate both with the same `evaluation` block"
_DATA_HINT: Final = (
    "give both the same `data.eval`, `data.template`, `data.train_on`, `training.max_length` and `evaluation`"
)


def check_comparable(evaluations: Sequence[Evaluation]) -> None:
    """Passes when all runs share the base model, the held-out rows and what counts as a right answer.

    Raises:
        SpecError: nothing to report, or runs that differ; every difference is a problem that names both runs.
    """
    if not evaluations:
        raise SpecError("no evaluation to report", hint="name a finished run")
    first, *others = evaluations
    problems = [problem for other in others for problem in _differences(first, other)]
    if problems:
        raise SpecError(problems)


def _differences(first: Evaluation, other: Evaluation) -> Iterator[Problem]:
    for (what, mine, hint), (_, theirs, _) in zip(_essentials(first), _essentials(other), strict=True):
        if mine != theirs:
            reason = f"{first.run_id} and {other.run_id} differ in their {what}: {mine} against {theirs}"
            yield Problem(reason=reason, hint=hint)


def _essentials(evaluation: Evaluation) -> tuple[tuple[str, str, str], ...]:
    """What, its value, and the repair. A run without `held_out_digest` vouches with the digest of all its data."""
    settings = evaluation.settings
    return (
        ("base model", evaluation.base_identity or evaluation.base_model, "compare runs on one base only"),
        ("held-out data", evaluation.held_out_digest or evaluation.data_digest, _DATA_HINT),
        ("answer pattern", str(settings.get("evaluation.generation.answer_pattern", "none")), _EVALUATION_HINT),
        ("length of answers", str(settings.get("evaluation.generation.max_new_tokens", "none")), _EVALUATION_HINT),
    )
