"""Document → the few lines that a person wants to see at the end of a run."""

from sftjob.report.document import Document, Table


def terminal(document: Document) -> str:
    """Title, lead sentence and headline table as plain text, the best of each row marked with `*`."""
    return "\n".join(["", document.title, document.lead, "", *_rows(document.headline), ""])


def _rows(table: Table) -> list[str]:
    texts = [list(table.head), *([f"{cell.text}{'*' if cell.strong else ' '}" for cell in row] for row in table.rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(table.head))]
    lines = [
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]
