"""What `sftjob data` shows: an audit with bars, rows with their trained tokens in colour, and the same as HTML."""

import html
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from sftjob.records import Audit, SplitAudit

if TYPE_CHECKING:
    from rich.text import Text

    from sftjob.data.preview import PreviewRow, Segment

_BAR: Final = 32
"""Characters of the longest bar."""
_STYLES: Final = {"context": "dim", "trained": "bold green", "cut": "strike red"}
_COLOURS: Final = {
    "context": "color:#667",
    "trained": "background:#c9f0d0;color:#063",
    "cut": "color:#b33;text-decoration:line-through",
}
_MARKS: Final = {"context": ("", ""), "trained": ("⟦", "⟧"), "cut": ("⟪", "⟫")}
_WORDS: Final = {"context": "read, not trained", "trained": "trained", "cut": "beyond max_length"}


def audit_lines(audit: Audit) -> Iterator[str]:
    """The audit for a terminal, a block of lines a split."""
    for name, split in audit.splits.items():
        yield from _split_lines(name, split, tokenised=audit.tokenised)
    if "eval" in audit.splits:
        rows = f" ({', '.join(audit.overlap_rows)})" if audit.overlap_rows else ""
        held_out = audit.splits["eval"].counts.rows
        yield f"overlap  {audit.overlap:,} of {held_out:,} held-out rows are asked in train, too{rows}"


def preview_text(rows: "Sequence[PreviewRow]", *, marks: bool = False) -> "Text":
    """Rows for a terminal; with `marks`, for one without colours: ⟦trained⟧, ⟪beyond max_length⟫."""
    from rich.text import Text  # noqa: PLC0415 - only a person who looks needs it

    shown = Text()
    for row in rows:
        shown.append(f"{_head(row)}\n", style="bold")
        for segment in row.segments:
            before, after = _MARKS[segment.kind] if marks else ("", "")
            shown.append(f"{before}{segment.text}{after}", style=_STYLES[segment.kind])
        shown.append("\n\n")
    shown.append_text(_legend(marks=marks))
    return shown


def preview_html(rows: "Sequence[PreviewRow]", title: str) -> str:
    """Rows as one page without scripts."""
    articles = "\n".join(
        f"<h2>{html.escape(_head(row))}</h2>\n<pre>{''.join(map(_span, row.segments))}</pre>" for row in rows
    )
    legend = " ".join(f'<span style="{_COLOURS[kind]}">{word}</span>' for kind, word in _WORDS.items())
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n<style>\n'
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#223}\n"
        "h1{font-size:1.3rem}h2{font-size:1rem;margin-top:2rem;overflow-wrap:anywhere}\n"
        "pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f7f7f9;padding:1rem;border-radius:6px}\n"
        f"</style>\n<h1>{html.escape(title)}</h1>\n<p>{legend}</p>\n{articles}\n</html>\n"
    )


def _split_lines(name: str, split: SplitAudit, *, tokenised: bool) -> Iterator[str]:
    counts, unit = split.counts, "tokens" if tokenised else "characters"
    yield f"{name:<8} {counts.rows:,} rows, {counts.kept:,} kept{_changes(split)}"
    roles = ", ".join(f"{count:,} {role}" for role, count in split.messages_by_role.items())
    if roles:
        yield f"  messages    {roles}" + (f"; {counts.left_out:,} in no row" if counts.left_out else "")
    if tokenised:
        share = counts.trained_tokens / counts.tokens if counts.tokens else 0.0
        by_role = ", ".join(f"{count:,} {role}" for role, count in split.trained_by_role.items())
        yield f"  tokens      {counts.tokens:,}, {counts.trained_tokens:,} trained ({share:.1%}): {by_role or 'none'}"
        yield f"  turns       {split.trained_turns:,} trained, {split.trained_ends:,} of them up to their end"
    yield f"  duplicates  {split.duplicates:,}"
    most = max((bin.rows for bin in split.lengths), default=1)
    for bin in split.lengths:
        bar = "█" * max(1, round(_BAR * bin.rows / most))
        yield f"  ≤{bin.up_to:>7,} {unit}  {bar} {bin.rows:,}"


def _changes(split: SplitAudit) -> str:
    counts = split.counts
    words = (
        (counts.skipped, "skipped"),
        (counts.dropped, "dropped for their length"),
        (counts.truncated, "truncated"),
        (counts.split, "more by splitting"),
        (counts.unrolled, "more by turns of their own"),
        (counts.without_trained_token, "without a trained token"),
        (counts.unmixed, "left out of the mix"),
        (counts.repeated, "repeated in the mix"),
        (counts.straddling, "answers that begin inside a token"),
    )
    return "".join(f", {count:,} {word}" for count, word in words if count)


def _head(row: "PreviewRow") -> str:
    return f"{row.id}   {row.tokens:,} tokens, {row.trained:,} trained"


def _legend(*, marks: bool) -> "Text":
    from rich.text import Text  # noqa: PLC0415 - as above

    words = {kind: word.join(_MARKS[kind]) if marks else word for kind, word in _WORDS.items()}
    return Text("   ").join(Text(word, style=_STYLES[kind]) for kind, word in words.items())


def _span(segment: "Segment") -> str:
    return f'<span style="{_COLOURS[segment.kind]}">{html.escape(segment.text)}</span>'
