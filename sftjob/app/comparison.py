"""Evaluated runs side by side."""

from collections.abc import Sequence
from pathlib import Path

from sftjob.report import Report, load_evaluation, report
from sftjob.storage import ObjectStore


def compare_runs(stores: Sequence[ObjectStore]) -> Report:
    """Reports on the newest finished evaluation of each run.

    Raises:
        InputMissing: a run has no finished evaluation.
        SpecError: the runs differ in base model or held-out data, so that their numbers say nothing of each other.
    """
    return report([load_evaluation(store) for store in stores])


def write_report(made: Report, folder: Path) -> list[Path]:
    """Writes report.md, report.html and report.json and returns their paths.

    Raises:
        ConfigurationError: HTML needs packages that are not installed; nothing is written then.
    """
    forms = {"report.md": made.markdown, "report.html": made.html, "report.json": made.json}
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in forms]
    for path, text in zip(paths, forms.values(), strict=True):
        new = path.with_name(f".{path.name}.new")
        new.write_text(text)
        new.replace(path)
    return paths
