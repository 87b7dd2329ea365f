"""Evaluations → Document: which numbers stand where. No markup here."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from sftjob.records import Answer, Evaluation, Metric, Score, SplitCounts
from sftjob.report import words
from sftjob.report.columns import Column, Format, base_format, columns, find_score, run_labels
from sftjob.report.document import Cell, Curve, Document, Exchange, Reply, Table
from sftjob.report.reading import interval, reading

SHOWN: Final = 50
"""Exchanges in a report; all of them are in report.json."""
_DASH: Final = "–"  # noqa: RUF001 - the dash that typesetters put into an empty cell


def build(evaluations: Sequence[Evaluation]) -> Document:
    """Puts a report together.

    Args:
        evaluations: at least one; already checked to be comparable. The base's numbers are the first one's.
    """
    labels = run_labels(evaluations)
    exchanges = _exchanges(evaluations, labels)
    return Document(
        title=_title(evaluations),
        lead=_lead(evaluations, labels),
        headline=_headline(columns(evaluations)),
        reading=reading(evaluations),
        data=_data(evaluations, labels),
        curves=tuple(Curve(label, _by_step(run.metrics)) for label, run in zip(labels, evaluations, strict=True)),
        exchanges=exchanges[:SHOWN],
        left_out=max(0, len(exchanges) - SHOWN),
        settings=_settings(evaluations, labels),
        identity=_identity(evaluations, labels),
    )


def _title(evaluations: Sequence[Evaluation]) -> str:
    first = evaluations[0]
    if len(evaluations) == 1:
        return f"{first.name}: {first.method} on {first.base_model}"
    return f"{len(evaluations)} runs on {first.base_model}"


def _lead(evaluations: Sequence[Evaluation], labels: Sequence[str]) -> str:
    """One sentence: the base where it does best against every tuned model, by exact match if there is one."""
    base = find_score(evaluations[0], "base", base_format(evaluations[0]))
    tuned = [find_score(run, "tuned", "template") for run in evaluations]
    if base is None or None in tuned:
        return "No rows were held out (data.eval is empty), so nothing was scored; only the prompts were answered."
    scores = {"base": base, **{label: score for label, score in zip(labels, tuned, strict=True) if score}}
    quantities = _quantities(scores.values())
    if len(evaluations) == 1:
        parts = (f"{what} from {' to '.join(values)} on {basis}" for what, basis, values in quantities)
        return f"Tuning takes {' and '.join(parts)}."
    what, basis, values = quantities[0]
    listed = (f"{label} {value}" for label, value in zip(scores, values, strict=True))
    return f"On the same {basis}, {what}: {', '.join(listed)}."


def _quantities(scores: Collection[Score]) -> list[tuple[str, str, list[str]]]:
    """What to sum a report up by, the most telling first: its name, what it is counted on, and every model's value."""
    rows, answers = max(score.rows for score in scores), max(score.generated for score in scores)
    found = [("loss", words.plural(rows, "held-out row"), [words.loss(score.loss) for score in scores])]
    matches = [score.exact_match for score in scores if score.exact_match is not None]
    if len(matches) == len(scores):
        found.insert(0, ("exact match", words.plural(answers, "answer"), [words.share(match) for match in matches]))
    return found


def _headline(shown: Sequence[Column]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    if any(column.score for column in shown):
        rows += [
            _scored("Loss", shown, lambda s: -s.loss, lambda s: words.loss(s.loss)),
            _scored("Perplexity", shown, lambda s: -s.perplexity, lambda s: words.perplexity(s.perplexity)),
            _scored("Token accuracy", shown, lambda s: s.token_accuracy, lambda s: words.share(s.token_accuracy)),
        ]
    if any(column.score and column.score.exact_match is not None for column in shown):
        rows += [
            _scored("Exact match", shown, lambda s: s.exact_match, lambda s: words.share(s.exact_match or 0.0)),
            _scored("95 % interval", shown, lambda s: None if s.exact_match is None else 0.0, interval, strong=False),
        ]
    rows += [
        _trained("Trained parameters", shown, lambda run: words.count(run.trainable_parameters)),
        _trained("Share of all", shown, _trained_share),
        _trained("Training time", shown, lambda run: words.duration(run.seconds_training)),
        _trained("Steps", shown, lambda run: words.count(run.step)),
        _trained("Tokens seen", shown, _tokens),
        *_memory(shown),
    ]
    return Table(head=("", *(column.label for column in shown)), rows=tuple(rows), numbers=True)


def _scored(
    name: str,
    shown: Sequence[Column],
    rank: Callable[[Score], float | None],
    text: Callable[[Score], str],
    *,
    strong: bool = True,
) -> tuple[Cell, ...]:
    """A row of scores; the highest rank is strong unless all are alike, and what has no rank is a dash."""
    ranks = [None if column.score is None else rank(column.score) for column in shown]
    known = {value for value in ranks if value is not None}
    best = max(known) if len(known) > 1 else None
    cells = (
        Cell(_DASH) if column.score is None or value is None else Cell(text(column.score), strong and value == best)
        for column, value in zip(shown, ranks, strict=True)
    )
    return Cell(name), *cells


def _trained(name: str, shown: Sequence[Column], text: Callable[[Evaluation], str]) -> tuple[Cell, ...]:
    return Cell(name), *(Cell(_DASH if column.run is None else text(column.run)) for column in shown)


def _trained_share(run: Evaluation) -> str:
    return words.share(run.trainable_parameters / run.total_parameters) if run.total_parameters else _DASH


def _tokens(run: Evaluation) -> str:
    seen = [line.tokens_seen for line in run.metrics if line.tokens_seen is not None]
    return words.count(max(seen)) if seen else _DASH


def _memory(shown: Sequence[Column]) -> Iterator[tuple[Cell, ...]]:
    """A process's resident set is no sum of tensors: it has a row of its own, which no estimate stands beside."""
    runs = [column.run for column in shown if column.run]
    if any(_peak(run, "device") for run in runs):
        yield _trained("Peak memory (GPU tensors)", shown, lambda run: _size(_peak(run, "device")))
    if any(run.estimated_memory_bytes for run in runs):
        yield _trained("Estimated memory", shown, lambda run: _size(run.estimated_memory_bytes))
    if any(_peak(run, "resident") for run in runs):
        yield _trained("Peak memory (CPU process)", shown, lambda run: _size(_peak(run, "resident")))


def _peak(run: Evaluation, kind: str) -> int | None:
    return run.peak_memory_bytes if run.peak_memory_kind == kind else None


def _size(value: int | None) -> str:
    return _DASH if value is None else words.size(value)


def _by_step(metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    return tuple(sorted(metrics, key=lambda line: line.step))


def _exchanges(evaluations: Sequence[Evaluation], labels: Sequence[str]) -> tuple[Exchange, ...]:
    """Answers side by side, in the order in which they were given."""
    first = evaluations[0]
    givers = [("base", _answers(first, "base", base_format(first)))]
    givers += [(label, _answers(run, "tuned", "template")) for label, run in zip(labels, evaluations, strict=True)]
    asked: dict[str, Answer] = {}
    for _, answers in givers:
        asked = asked | {key: answer for key, answer in answers.items() if key not in asked}
    return tuple(
        Exchange(
            id=key,
            prompt=answer.prompt,
            reference=answer.reference,
            replies=tuple(_reply(label, answers[key]) for label, answers in givers if key in answers),
        )
        for key, answer in asked.items()
    )


def _answers(evaluation: Evaluation, model: str, form: Format) -> dict[str, Answer]:
    return {a.id: a for a in evaluation.answers if a.model == model and a.prompt_format == form}


def _reply(label: str, answer: Answer) -> Reply:
    return Reply(label=label, text=answer.answer, match=answer.match)


def _data(evaluations: Sequence[Evaluation], labels: Sequence[str]) -> Table:
    """Rows and tokens of every split; one line a split where all runs saw the same data."""
    same = all(run.data == evaluations[0].data for run in evaluations)
    runs = [("", evaluations[0])] if same else list(zip((f"{label}, " for label in labels), evaluations, strict=True))
    rows = tuple(
        (Cell(f"{label}{split}"), *_counts(counts))
        for label, run in runs
        for split, counts in sorted(run.data.items(), key=lambda item: item[0] != "train")
    )
    head = ("", "rows", "kept", "left out", "added", "truncated", "tokens", "trained tokens", "longest", "packs")
    return Table(head, rows, numbers=True)


def _counts(counts: SplitCounts) -> Iterator[Cell]:
    added = counts.repeated + counts.unrolled + counts.split
    left_out = counts.rows + added - counts.kept
    numbers = (counts.rows, counts.kept, left_out, added, counts.truncated, counts.tokens, counts.trained_tokens)
    packs = _DASH if counts.packs is None else words.count(counts.packs)
    return (Cell(text) for text in (*map(words.count, (*numbers, counts.longest)), packs))


def _settings(evaluations: Sequence[Evaluation], labels: Sequence[str]) -> tuple[Table, ...]:
    """What differs among the runs first, with a column each; then what they share."""
    names = sorted({name for run in evaluations for name in run.settings})
    values = {name: tuple(_setting(run, name) for run in evaluations) for name in names}
    differing = [name for name in names if len(set(values[name])) > 1]
    shared = [name for name in names if name not in differing]
    tables = (
        Table(("differs", *labels), tuple((Cell(name), *map(Cell, values[name])) for name in differing)),
        Table(("setting", "value"), tuple((Cell(name), Cell(values[name][0])) for name in shared)),
    )
    return tuple(table for table in tables if table.rows)


def _setting(run: Evaluation, name: str) -> str:
    value = run.settings.get(name)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _DASH if value is None else str(value)


def _identity(evaluations: Sequence[Evaluation], labels: Sequence[str]) -> Table:
    rows: tuple[tuple[str, Callable[[Evaluation], str]], ...] = (
        ("run", lambda run: run.run_id),
        ("exported step", lambda run: str(run.step)),
        ("evaluation", lambda run: run.eval_id),
        ("base", lambda run: run.base_identity or run.base_model),
        ("data", lambda run: run.data_digest),
        ("held-out rows", lambda run: run.held_out_digest or _DASH),
        ("finished", lambda run: run.time),
    )
    return Table(("", *labels), tuple((Cell(name), *(Cell(text(run)) for run in evaluations)) for name, text in rows))
