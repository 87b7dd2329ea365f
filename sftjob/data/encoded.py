"""One row as the model sees it: token ids, and which of them are trained."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

IGNORED: Final = -100
"""Label of a token that is not trained (`ignore_index` of torch's cross entropy)."""


@dataclass(frozen=True)
class TrainedSpan:
    """Tokens [start, end) of a row, all of them trained."""

    start: int
    end: int
    role: str
    """Of the message that they are part of; `text` in a row that is no conversation."""
    stop: bool
    """The last of them ends the turn, or the text."""


@dataclass(frozen=True)
class Encoded:
    """One row as the model sees it."""

    input_ids: list[int]
    labels: list[int]
    """As long as `input_ids`: the id where it is trained, `IGNORED` elsewhere. The first is always ignored: nothing
    comes before it from which it could be predicted."""
    truncated: bool = False
    """Its end was cut off."""
    straddling: int = 0
    """Tokens that are part prompt and part answer, and therefore not trained."""
    spans: tuple[TrainedSpan, ...] = ()
    """All trained tokens, ascending."""

    @property
    def trained_tokens(self) -> int:
        return len(self.labels) - self.labels.count(IGNORED)

    @property
    def trained_by_role(self) -> dict[str, int]:
        """Trained tokens of each role that has any."""
        tokens: Counter[str] = Counter()
        for span in self.spans:
            tokens[span.role] += span.end - span.start
        return dict(tokens)
