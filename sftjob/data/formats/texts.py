"""One column of text: `guanaco`, which marks its turns, and `text`, which has none."""

import re
from dataclasses import dataclass
from typing import Final

from sftjob.data.formats.fields import Fields, RowFormat
from sftjob.data.formats.turns import Turn, check_order
from sftjob.data.messages import Message, Role, Row

_MARKER: Final = re.compile(r"(?<!#)### (Human|Assistant|System):")
_SPEAKERS: Final[dict[str, Role]] = {"Human": "user", "Assistant": "assistant", "System": "system"}


@dataclass(frozen=True)
class Guanaco(RowFormat):
    """Told from plain text by how the text of a file's first row begins."""

    def fits(self, fields: Fields) -> bool:
        text = fields.get("text")
        return isinstance(text, str) and _MARKER.match(text.lstrip()) is not None


def from_guanaco(fields: Fields) -> Row:
    """Takes `text` in which `### Human:`, `### Assistant:` and `### System:` begin a turn, wherever they stand.

    Blanks around a turn are not part of it. Turns after the last assistant's are left out and counted in
    `Row.left_out`. Text before the first marker and empty turns are refused.
    """
    text, field = fields.text("text"), fields.name("text")
    if not text:
        return fields.row()
    markers = list(_MARKER.finditer(text))
    if not markers:
        fields.report(field, "no turn", "turns begin with `### Human:` and `### Assistant:`")
        return fields.row()
    if text[: markers[0].start()].strip():
        fields.report(field, f"text before the first `### {markers[0].group(1)}:`", "give it a turn of its own")
    ends = [marker.start() for marker in markers[1:]] + [len(text)]
    turns = [
        _turn(fields, marker.group(1), text[marker.end() : end], f"{field}.{position}")
        for position, (marker, end) in enumerate(zip(markers, ends, strict=True))
    ]
    answers = [position for position, turn in enumerate(turns) if turn.message.role == "assistant"]
    kept = turns[: answers[-1] + 1] if answers else turns
    return fields.row(check_order(fields, kept, field), left_out=len(turns) - len(kept))


def from_text(fields: Fields) -> Row:
    """Takes `text` as it is, for training without a chat template; empty text is refused."""
    return fields.row(text=fields.text("text"))


def _turn(fields: Fields, speaker: str, text: str, field: str) -> Turn:
    content = text.strip()
    if not content:
        fields.report(field, f"an empty turn after `### {speaker}:`")
    return Turn(Message(_SPEAKERS[speaker], content), field)
