"""One report in three forms, made from evaluations alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sftjob.errors import ConfigurationError
from sftjob.records import Evaluation
from sftjob.report.build import build
from sftjob.report.comparable import check_comparable
from sftjob.report.document import Document
from sftjob.report.markdown import markdown

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True)
class Report:
    """A report; each form is made when it is asked for, since only HTML needs matplotlib and Jinja."""

    evaluations: tuple[Evaluation, ...]
    document: Document

    @property
    def markdown(self) -> str:
        """GitHub-flavoured Markdown."""
        return markdown(self.document)

    @property
    def html(self) -> str:
        """One self-contained page.

        Raises:
            ConfigurationError: matplotlib or Jinja is not installed.
        """
        try:
            from sftjob.report.html import html  # noqa: PLC0415 - a laptop reads Markdown without matplotlib and Jinja
        except ImportError as error:
            raise ConfigurationError(f"HTML needs {error.name}", hint="pip install 'sftjob[eval]'") from error
        return html(self.document)

    @property
    def json(self) -> str:
        """Everything, answers that the other forms leave out included: `{schema_version, evaluations}`."""
        records = [evaluation.model_dump(mode="json", exclude_none=True) for evaluation in self.evaluations]
        return (
            json.dumps({"schema_version": SCHEMA_VERSION, "evaluations": records}, indent=2, ensure_ascii=False) + "\n"
        )


def report(evaluations: Sequence[Evaluation]) -> Report:
    """Reports on one run (base against tuned) or compares several on one base and the same held-out rows.

    Raises:
        SpecError: no evaluation, or runs that cannot be compared; the message names what differs.
    """
    check_comparable(evaluations)
    return Report(evaluations=tuple(evaluations), document=build(evaluations))
