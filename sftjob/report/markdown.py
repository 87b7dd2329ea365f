"""Document → GitHub-flavoured Markdown. Every text of a model or a person is escaped: nothing of it becomes markup."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

from sftjob.report import words
from sftjob.report.document import Cell, Curve, Document, Exchange, Reply, Table

LONGEST_TEXT: Final = 800
"""Characters of an answer that are shown; the whole text is in report.json."""
CURVE_ROWS: Final = 10
_TEXTS: Final[dict[str, Callable[[float], str]]] = {
    "loss": words.loss,
    "held-out loss": words.loss,
    "perplexity": words.perplexity,
    "held-out perplexity": words.perplexity,
    "learning rate": words.small,
    "gradient norm": words.small,
}
_READINGS: Final[dict[str, tuple[str, Callable[[float], str]]]] = {
    "GPU memory": ("gpu_memory_bytes", words.size),
    "GPU utilisation": ("gpu_utilisation_percent", "{:.0f} %".format),
    "GPU power": ("gpu_power_watts", "{:.0f} W".format),
    "host memory": ("host_memory_bytes", words.size),
}
"""Columns of what a machine told, where it did."""
_MARKUP: Final = re.compile(r"([\\`*_\[\]|~$])")
_ENTITIES: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_LINES: Final = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_MARKS: Final = {True: "✓ ", False: "✗ ", None: ""}


def markdown(document: Document) -> str:
    """The report as one Markdown text that ends with a newline."""
    return "\n\n".join(_blocks(document)) + "\n"


def escape(text: str) -> str:
    """Text as one table cell or line: markup is escaped, line breaks become `<br>`."""
    escaped = _MARKUP.sub(r"\\\1", text.translate(_ENTITIES))
    return _LINES.sub("<br>", escaped.strip())


def _blocks(document: Document) -> Iterator[str]:
    yield f"# {escape(document.title)}"
    yield escape(document.lead)
    yield _table(document.headline)
    yield "## How to read this"
    yield from map(escape, document.reading)
    yield "## What was trained on"
    yield _table(document.data)
    yield from _curves(document.curves)
    yield from _exchanges(document)
    if document.settings:
        yield "## Settings"
    yield from map(_table, document.settings)
    yield "## Identity"
    yield _table(document.identity)


def _table(table: Table) -> str:
    align = ["---", *(["---:"] if table.numbers else ["---"]) * (len(table.head) - 1)]
    lines = [_line(map(escape, table.head)), _line(align)]
    lines += [_line(map(_cell, row)) for row in table.rows]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    return f"**{text}**" if cell.strong else text


def _curves(curves: Sequence[Curve]) -> Iterator[str]:
    drawn = [curve for curve in curves if curve.metrics]
    if not drawn:
        return
    yield "## Training"
    for curve in drawn:
        if len(drawn) > 1:
            yield f"### {escape(curve.label)}"
        yield _curve(curve)


def _curve(curve: Curve) -> str:
    """A few evenly spread steps; the plots in report.html have them all."""
    quantities = {
        "loss": dict(curve.points("train", "loss")),
        "held-out loss": dict(curve.points("eval", "loss")),
        "perplexity": dict(curve.points("train", "perplexity")),
        "held-out perplexity": dict(curve.points("eval", "perplexity")),
        "learning rate": dict(curve.points("train", "learning_rate")),
        "gradient norm": dict(curve.points("train", "grad_norm")),
        **{name: dict(curve.points("train", quantity)) for name, (quantity, _) in _READINGS.items()},
    }
    quantities = {name: values for name, values in quantities.items() if values or name not in _READINGS}
    steps = _spread(sorted({step for values in quantities.values() for step in values}), quantities["held-out loss"])
    told = {name: text for name, (_, text) in _READINGS.items()}
    texts = [{**_TEXTS, **told}[name] for name in quantities]
    rows = tuple(
        (
            Cell(words.count(step)),
            *(
                Cell(text(values[step]) if step in values else "")
                for text, values in zip(texts, quantities.values(), strict=True)
            ),
        )
        for step in steps
    )
    return _table(Table(("step", *quantities), rows, numbers=True))


def _spread(steps: Sequence[int], wanted: Collection[int]) -> list[int]:
    """At most `CURVE_ROWS` of the steps, evenly spread, the first and the last among them; wanted ones if they fit."""
    few = [step for step in steps if step in wanted or step in (steps[0], steps[-1])]
    if wanted and len(few) <= CURVE_ROWS:
        return few
    if len(steps) <= CURVE_ROWS:
        return list(steps)
    return [steps[index * (len(steps) - 1) // (CURVE_ROWS - 1)] for index in range(CURVE_ROWS)]


def _exchanges(document: Document) -> Iterator[str]:
    if not document.exchanges:
        return
    yield "## Side by side"
    yield from map(_exchange, document.exchanges)
    if document.left_out:
        yield f"{words.plural(document.left_out, 'more prompt')} and their answers are in report.json."


def _exchange(exchange: Exchange) -> str:
    lines = [_line(("prompt", _text(exchange.prompt))), _line(("---", "---"))]
    if exchange.reference is not None:
        lines.append(_line(("reference", _text(exchange.reference))))
    lines += map(_reply, exchange.replies)
    return f"### {escape(exchange.id)}\n\n" + "\n".join(lines)


def _reply(reply: Reply) -> str:
    return _line((escape(reply.label), f"{_MARKS[reply.match]}{_text(reply.text) or '(nothing)'}"))


def _text(text: str) -> str:
    stripped = text.strip()
    if len(stripped) <= LONGEST_TEXT:
        return escape(stripped)
    return f"{escape(stripped[:LONGEST_TEXT])} … ({words.plural(len(stripped) - LONGEST_TEXT, 'more character')})"
