"""What a report says, before it becomes Markdown or HTML: plain data, no markup, nothing escaped."""

import math
from dataclasses import dataclass
from typing import Final

from sftjob.records import Metric

_LARGEST_EXPONENT: Final = 700.0


@dataclass(frozen=True)
class Cell:
    text: str
    strong: bool = False
    """The best of its row."""


@dataclass(frozen=True)
class Table:
    """A table whose first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numbers: bool = False
    """All columns but the first hold numbers."""


@dataclass(frozen=True)
class Reply:
    label: str
    text: str
    match: bool | None
    """Whether it equals the reference; None without one."""


@dataclass(frozen=True)
class Exchange:
    """One prompt and what each model made of it."""

    id: str
    prompt: str
    reference: str | None
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class Curve:
    """One run's metrics in ascending order of steps."""

    label: str
    metrics: tuple[Metric, ...]

    def points(self, kind: str, quantity: str) -> tuple[tuple[int, float], ...]:
        """(step, value) of the lines that have the quantity, e.g. `points("train", "grad_norm")`.

        `perplexity` is that of the loss; it is left out where a float cannot hold it.
        """
        lines = ((line.step, _value(line, quantity)) for line in self.metrics if line.kind == kind)
        return tuple((step, value) for step, value in lines if value is not None)


def _value(line: Metric, quantity: str) -> float | None:
    if quantity == "perplexity":
        return math.exp(line.loss) if line.loss < _LARGEST_EXPONENT else None
    value: float | None = getattr(line, quantity)
    return value


@dataclass(frozen=True)
class Document:
    """The parts of a report in the order in which they are read."""

    title: str
    lead: str
    """One sentence: what came out."""
    headline: Table
    reading: tuple[str, ...]
    """Paragraphs on how to read the table."""
    data: Table
    curves: tuple[Curve, ...]
    exchanges: tuple[Exchange, ...]
    left_out: int
    """Exchanges that were compared but are not shown."""
    settings: tuple[Table, ...]
    identity: Table
