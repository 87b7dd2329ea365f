"""Records → a report that a person reads: Markdown, one HTML file, JSON. Runs are compared only where that is fair."""

from sftjob.report.load import load_evaluation
from sftjob.report.report import Report, report

__all__ = ["Report", "load_evaluation", "report"]
