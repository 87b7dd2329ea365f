"""Document → one HTML file that needs nothing else: styles and plots are inside, and everything is escaped."""

from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined

from sftjob.report.document import Document
from sftjob.report.plots import plots

_TEMPLATE: Final = "report.html.j2"
_MARKS: Final = {True: "matches", False: "differs"}


def html(document: Document) -> str:
    """The report as a page."""
    # Autoescaping covers every text in the document; only the plots, which we draw ourselves, are marked safe.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("sftjob.report").joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    return template.render(document=document, plots=plots(document.curves), marks=_MARKS)
