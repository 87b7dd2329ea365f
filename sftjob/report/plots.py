"""Curves as inline SVG that takes its colours from the page, so that light and dark both fit.

matplotlib draws with placeholder colours, which are then replaced by CSS variables; text stays text. The same curves
give the same bytes: ids come from a fixed salt and no date is written.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from sftjob.report.document import Curve

MOST_POINTS: Final = 600
"""Points of a line; more cannot be told apart at this width."""
_INK: Final = "#010203"
_GRID: Final = "#010204"
_SERIES: Final = ("#010210", "#010211", "#010212", "#010213", "#010214", "#010215")
_VARIABLES: Final = {
    _INK: "var(--muted)",
    _GRID: "var(--line)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, start=1)},
}
_STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sftjob",
    "font.size": 10,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": _GRID,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
}


_DRAWN: Final[tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...]] = (
    ("Loss", (("train", "loss", "-"), ("eval", "loss", "o--"))),
    ("Perplexity", (("train", "perplexity", "-"), ("eval", "perplexity", "o--"))),
    ("Learning rate", (("train", "learning_rate", "-"),)),
    ("Gradient norm", (("train", "grad_norm", "-"),)),
    ("Tokens per second", (("train", "tokens_per_second", "-"),)),
    ("GPU memory in GiB", (("train", "gpu_memory_bytes", "-"),)),
    ("GPU utilisation in %", (("train", "gpu_utilisation_percent", "-"),)),
    ("GPU power in W", (("train", "gpu_power_watts", "-"),)),
    ("GPU temperature in °C", (("train", "gpu_temperature_celsius", "-"),)),
    ("Host memory in GiB", (("train", "host_memory_bytes", "-"),)),
    ("Host CPU in %", (("train", "host_cpu_percent", "-"),)),
)
"""Title, and its lines: kind, quantity, matplotlib's style."""
_LOGARITHMIC: Final = 10.0
"""Perplexities that differ by more than this factor are drawn on a logarithmic axis."""
_FROM_ZERO: Final = ("_bytes", "_percent")
"""Shares of a whole: an axis that begins elsewhere makes much of little."""


@dataclass(frozen=True)
class Plot:
    title: str
    svg: str
    """An `<svg>` element; safe to put into a page as it is."""


def plots(curves: Sequence[Curve]) -> tuple[Plot, ...]:
    """What a run tells of itself over optimizer steps; a plot without a point is left out."""
    return tuple(
        Plot(_caption(title, curves, lines), _svg(title, curves, lines))
        for title, lines in _DRAWN
        if any(curve.points(kind, quantity) for curve in curves for kind, quantity, _ in lines)
    )


def _caption(title: str, curves: Sequence[Curve], lines: Sequence[tuple[str, str, str]]) -> str:
    return f"{title} (held out: dashed)" if len(curves) > 1 and len(lines) > 1 else title


def _svg(title: str, curves: Sequence[Curve], lines: Sequence[tuple[str, str, str]]) -> str:
    out = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": f"sftjob {title}"}):
        figure = Figure(figsize=(4.2, 2.7), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        _draw(axes, curves, lines)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    return _themed(out.getvalue(), title)


def _draw(axes: Axes, curves: Sequence[Curve], lines: Sequence[tuple[str, str, str]]) -> None:
    """One run: train and held-out have a colour each. Several: a run has one colour, and held-out is dashed."""
    several = len(curves) > 1
    for number, curve in enumerate(curves):
        for kind, quantity, style in lines:
            unit = 2**30 if quantity.endswith("_bytes") else 1
            points = [(step, value / unit) for step, value in _thinned(curve.points(kind, quantity))]
            if points:
                colour = _SERIES[(number if several else int(kind == "eval")) % len(_SERIES)]
                label = curve.label if several else {"train": "train", "eval": "held out"}[kind]
                known = label in axes.get_legend_handles_labels()[1]
                axes.plot(
                    *zip(*points, strict=True), style, color=colour, markersize=4, label="_known" if known else label
                )
    axes.set_xlabel("step")
    axes.margins(x=0.02)
    if _wide(curves, lines):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 6), useOffset=False)
        # As many as fit would be chosen after the layout, too late for the width of their labels.
        axes.locator_params(axis="y", nbins=6)
        if lines[0][1].endswith(_FROM_ZERO):
            axes.set_ylim(bottom=0)
    if len(axes.lines) > 1:
        for text in axes.legend(fontsize=9).get_texts():
            text.set_parse_math(False)


def _wide(curves: Sequence[Curve], lines: Sequence[tuple[str, str, str]]) -> bool:
    found = [value for curve in curves for kind, name, _ in lines for _, value in curve.points(kind, name)]
    return lines[0][1] == "perplexity" and max(found) > _LOGARITHMIC * min(found)


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    if len(points) <= MOST_POINTS:
        return list(points)
    return [points[index * (len(points) - 1) // (MOST_POINTS - 1)] for index in range(MOST_POINTS)]


def _themed(svg: str, title: str) -> str:
    """The bare element: colours from the page, size from its place, a name for screen readers, no ids that repeat."""
    element = svg[svg.index("<svg") :].strip()
    element = re.sub(r"<style.*?</style>\s*", "", element, flags=re.DOTALL)
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    for colour, variable in _VARIABLES.items():
        element = element.replace(colour, variable)
    box = re.search(r'viewBox="[^"]+"', element)
    head = f'<svg {box.group() if box else ""} role="img" aria-label="{title} over optimizer steps"'
    return re.sub(r"<svg[^>]*", head, element, count=1)
