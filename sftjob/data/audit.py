"""What is in a data set, counted while it passes by, and what is so wrong with it that nobody should train on it."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from sftjob.data.encoded import Encoded
from sftjob.data.messages import Message, Row, as_dicts
from sftjob.errors import Problem
from sftjob.records import Audit, LengthBin, SplitAudit, SplitCounts
from sftjob.spec.data import Data

OVERLAP_SHOWN: Final = 5
_FINGERPRINT_BYTES: Final = 8


class SplitTally:
    """Counts of some rows of a split. Tallies of blocks add up to that of the split."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.messages_by_role: Counter[str] = Counter()
        self.trained_by_role: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()
        """Rows by the upper bound of their length's bin."""
        self.longest = 0
        self.conversations: list[int] = []
        """A fingerprint of each row, repetitions in a mix left out."""
        self.questions: list[tuple[int, str]] = []
        """A fingerprint of what is asked last in each row, and the row's id."""
        self.asked: list[int] = []
        """Fingerprints of all that is asked, earlier turns included."""

    def add_row(self, row: Row, *, usable: bool = True) -> None:
        """Counts a row of a file; a further copy of it in a mix counts as a repetition alone."""
        if row.copy:
            self.counts["repeated"] += usable
            return
        self.counts["rows"] += 1
        if not usable:
            return
        self.counts["left_out"] += row.left_out
        self.messages_by_role.update(message.role for message in row.messages)
        self.conversations.append(_fingerprint(row.text or json.dumps([as_dicts(row.messages), row.tools])))
        questions = [_fingerprint(question) for question in _questions(row)]
        self.questions.append((questions[-1], row.id))
        self.asked += questions

    def add_encoded(self, whole: Encoded, pieces: Sequence[Encoded]) -> None:
        """Counts one row's tokens and what became of them under `max_length`."""
        counts, spans = self.counts, [span for span in whole.spans if span.role == "assistant"]
        self.lengths[length_bin(len(whole.input_ids))] += 1
        counts["trained_turns"] += len(spans)
        counts["straddling"] += whole.straddling
        counts["split"] += max(0, len(pieces) - 1)
        counts["dropped"] += not pieces
        for piece in pieces:
            self._add_piece(piece)

    def _add_piece(self, piece: Encoded) -> None:
        counts, length = self.counts, len(piece.input_ids)
        counts["truncated"] += piece.truncated
        if not piece.trained_tokens:
            counts["without_trained_token"] += 1
            return
        counts["kept"] += 1
        counts["tokens"] += length
        counts["trained_tokens"] += piece.trained_tokens
        counts["trained_ends"] += sum(span.stop and span.role == "assistant" for span in piece.spans)
        counts["untrained_chat_tokens"] += length - 1 - piece.trained_tokens
        counts["chat_rows"] += any(span.role != "text" for span in piece.spans)
        self.trained_by_role.update(piece.trained_by_role)
        self.longest = max(self.longest, length)

    def add_characters(self, row: Row) -> None:
        """Counts the length of a row where there is no tokenizer."""
        self.counts["kept"] += 1
        length = sum(len(message.content) for message in row.messages) + len(row.text or "")
        self.lengths[length_bin(length)] += 1
        self.longest = max(self.longest, length)

    def finish(self, skipped: int, *, seen: int = 0) -> None:
        """Counts the rows that the tally never saw: those that cannot be used, and those that a mix leaves out.

        Args:
            skipped: rows that cannot be used.
            seen: how many of them were added as rows before they were refused.
        """
        self.counts["skipped"] += skipped
        self.counts["rows"] += skipped - seen + self.counts["unmixed"]

    def merge(self, other: "SplitTally") -> None:
        """Adds what another part of the split has counted."""
        for name in ("counts", "messages_by_role", "trained_by_role", "lengths"):
            getattr(self, name).update(getattr(other, name))
        self.longest = max(self.longest, other.longest)
        self.conversations += other.conversations
        self.questions += other.questions
        self.asked += other.asked

    def audit(self, *, packs: int | None = None) -> SplitAudit:
        """What was counted, as a record."""
        values = {name: self.counts[name] for name in SplitCounts.model_fields if name in self.counts}
        return SplitAudit(
            counts=SplitCounts(**{"rows": 0, "kept": 0, **values, "longest": self.longest, "packs": packs}),
            messages_by_role=dict(sorted(self.messages_by_role.items())),
            trained_by_role=dict(sorted(self.trained_by_role.items())),
            lengths=tuple(LengthBin(up_to=up_to, rows=rows) for up_to, rows in sorted(self.lengths.items())),
            trained_turns=self.counts["trained_turns"],
            trained_ends=self.counts["trained_ends"],
            duplicates=len(self.conversations) - len(set(self.conversations)),
        )


def length_bin(length: int) -> int:
    """Upper bound of the bin of a length: powers of two and the steps half-way between them, from 16 on."""
    up_to = 16
    while up_to < length:
        up_to = up_to * 3 // 2 if up_to & (up_to - 1) == 0 else up_to * 4 // 3
    return up_to


def make_audit(tallies: Mapping[str, SplitTally], *, tokenised: bool = True, packs: int | None = None) -> Audit:
    """The audit of `train` and, where there is one, `eval`."""
    overlapping = list(_overlapping(tallies))
    return Audit(
        tokenised=tokenised,
        splits={name: tally.audit(packs=packs if name == "train" else None) for name, tally in tallies.items()},
        overlap=len(overlapping),
        overlap_rows=tuple(overlapping[:OVERLAP_SHOWN]),
    )


def findings(
    tallies: Mapping[str, SplitTally], audit: Audit, *, files: Mapping[str, str], data: Data, max_length: int
) -> Iterator[Problem]:
    """Yields why nobody should train on this: a model would learn nothing, everything, not to stop, or the answers.

    Args:
        tallies: of the splits that have rows.
        audit: of the same.
        files: what a person calls the first file of each split.
        data: the spec's block.
        max_length: tokens of a row.
    """
    for split, tally in tallies.items():
        if audit.tokenised:
            yield from _token_findings(split, tally.counts, file=files[split], data=data, max_length=max_length)
    rows = audit.splits["eval"].counts.rows if "eval" in audit.splits else 0
    if audit.overlap > data.max_overlap * rows:
        shown = ", ".join(audit.overlap_rows) + (" …" if audit.overlap > OVERLAP_SHOWN else "")
        yield Problem(
            reason=f"{audit.overlap:,} of {rows:,} held-out rows ({audit.overlap / rows:.1%}) ask what training rows "
            f"ask, too: {shown}",
            file=files["eval"],
            field="data.max_overlap",
            hint=f"take them out of one of the two, or raise data.max_overlap above {data.max_overlap:g}",
        )


def _token_findings(split: str, counts: Counter[str], *, file: str, data: Data, max_length: int) -> Iterator[Problem]:
    if not counts["kept"]:
        yield Problem(
            reason=f"no row of `{split}` keeps a trained token within {max_length} tokens",
            file=file,
            field="training.max_length",
            hint="raise training.max_length",
        )
        return
    if data.train_on != "all" and counts["chat_rows"] and not counts["untrained_chat_tokens"]:
        yield Problem(
            reason=f"every token of `{split}` is trained, the questions too",
            file=file,
            field="data.template",
            hint="the template shows no prompt; set data.template: chatml, or data.train_on: all if that is meant",
        )
    if counts["trained_turns"] and not counts["trained_ends"]:
        yield Problem(
            reason=f"no answer of `{split}` is trained up to its end within {max_length} tokens: it would never stop",
            file=file,
            field="training.max_length",
            hint="raise training.max_length, or set data.overlong: drop or split",
        )


def _overlapping(tallies: Mapping[str, SplitTally]) -> Iterator[str]:
    if "eval" not in tallies or "train" not in tallies:
        return
    asked = set(tallies["train"].asked)
    yield from (row for fingerprint, row in tallies["eval"].questions if fingerprint in asked)


def _questions(row: Row) -> list[str]:
    """For each answer of a row all that comes before it, whatever its case and its blanks.

    A row in which nobody asks is its own question, and so is a plain text.
    """
    if row.text is not None:
        return [_folded([row.text])]
    answers = [place for place, message in enumerate(row.messages) if message.role == "assistant"]
    asked = [row.messages[:place] for place in answers]
    return [_folded(_texts(before)) for before in asked if any(message.role == "user" for message in before)] or [
        _folded(_texts(row.messages))
    ]


def _texts(messages: Iterable[Message]) -> Iterator[str]:
    for message in messages:
        yield f"{message.role}: {message.content}"
        if message.tool_calls:
            yield json.dumps(as_dicts([message]))


def _folded(texts: Iterable[str]) -> str:
    return "\n".join(" ".join(text.casefold().split()) for text in texts)


def _fingerprint(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_FINGERPRINT_BYTES)
    return int.from_bytes(digest.digest())
