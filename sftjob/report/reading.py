"""The paragraphs that tell how far a report's numbers can be trusted."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Final

from sftjob.records import Evaluation, Score
from sftjob.report import words
from sftjob.report.columns import FORMATS, base_format, columns, find_score
from sftjob.report.statistics import wilson_interval

SMALL_SAMPLE: Final = 100
_NAMED_PAIRS: Final = 3
_SAME_LOSS: Final = 1e-3
"""Relative difference up to which two scores of the same base count as rounding."""


def reading(evaluations: Sequence[Evaluation]) -> tuple[str, ...]:
    """Short paragraphs of plain text: what the numbers mean, what they do not, and how uncertain they are."""
    formats = " ".join(filter(None, (_formats(evaluations), _other_tokens(evaluations))))
    paragraphs = (_meaning(evaluations), formats, _uncertainty(evaluations), _other_base(evaluations))
    return tuple(text for text in paragraphs if text)


def interval(score: Score) -> str:
    """The 95 % interval of exact match, rounded outwards: `53 to 89 %`."""
    low, high = _bounds(score)
    return f"{math.floor(low * 100)} to {math.ceil(high * 100 - 1e-9)} %"


def _meaning(evaluations: Sequence[Evaluation]) -> str:
    score = find_score(evaluations[0], "tuned", "template")
    if score is None:
        return "Nothing was scored: hold rows out with data.eval to get loss, accuracy and exact match."
    tokens, rows = words.plural(score.trained_tokens, "trained token"), words.plural(score.rows, "held-out row")
    return (
        f"Loss is the mean negative log-likelihood, in nats, of the {tokens} of {rows}; perplexity is its exponential; "
        "token accuracy is the share of those tokens that the model ranks first. Models compare by them only under the "
        "same tokenizer."
    )


def _formats(evaluations: Sequence[Evaluation]) -> str:
    if all(column.run for column in columns(evaluations)):
        return ""
    text = (
        "A base model may never have seen the chat template, and its numbers there then say little, so it is tried "
        "under a plain prompt (role names and text) as well."
    )
    if not evaluations[0].answers:
        return text
    form = base_format(evaluations[0])
    better = ", which suits it better" if find_score(evaluations[0], "base", form) else ""
    return f"{text} Side by side it answers under the {form} one{better}."


def _other_tokens(evaluations: Sequence[Evaluation]) -> str:
    """The plain format has another end of text and only the last answer: its loss is over other tokens."""
    plain, template = (find_score(evaluations[0], "base", form) for form in FORMATS)
    if plain is None or template is None:
        return ""
    counts = f"{words.count(plain.trained_tokens)} there, {words.count(template.trained_tokens)} under the template"
    return f"Under the plain prompt other tokens are scored ({counts}), so its loss compares with the others roughly."


def _uncertainty(evaluations: Sequence[Evaluation]) -> str:
    """How far exact match can be trusted: of the base where it does best, and of every run."""
    base = find_score(evaluations[0], "base", base_format(evaluations[0]))
    named = [("base", base), *((column.label, column.score) for column in columns(evaluations) if column.run)]
    scores = {label: score for label, score in named if score and score.generated and score.exact_match is not None}
    if not scores:
        return ""
    answers = max(score.generated for score in scores.values())
    text = f"Exact match counts {words.plural(answers, 'greedy answer')}; its interval is Wilson's, at 95 %."
    overlapping = [pair for pair in combinations(scores, 2) if _overlap(*(_bounds(scores[label]) for label in pair))]
    if overlapping:
        pairs = "; ".join(" and ".join(pair) for pair in overlapping[:_NAMED_PAIRS])
        text += f" Where intervals overlap, the difference may be chance: {pairs}{_more(overlapping)}."
    if answers < SMALL_SAMPLE:
        text += " This is a small sample: raise evaluation.generation.held_out_rows for a firmer answer."
    return text


def _more(pairs: Sequence[object]) -> str:
    return f"; and {len(pairs) - _NAMED_PAIRS} more pairs" if len(pairs) > _NAMED_PAIRS else ""


def _bounds(score: Score) -> tuple[float, float]:
    return wilson_interval(round((score.exact_match or 0.0) * score.generated), score.generated)


def _overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _other_base(evaluations: Sequence[Evaluation]) -> str:
    first = find_score(evaluations[0], "base", base_format(evaluations[0]))
    if first is None:
        return ""
    others = [(run.run_id, find_score(run, "base", first.prompt_format)) for run in evaluations[1:]]
    different = tuple(
        f"{words.loss(score.loss)} in {run_id}"
        for run_id, score in others
        if score and not math.isclose(score.loss, first.loss, rel_tol=_SAME_LOSS)
    )
    if not different:
        return ""
    return (
        f"The base's loss was {words.loss(first.loss)} in {evaluations[0].run_id} (shown) but "
        f"{words.enumeration(different)}: another precision or other embeddings of new tokens."
    )
