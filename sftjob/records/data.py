"""What became of rows on their way to tokens."""

from pydantic import Field

from sftjob.records.base import Record, Sha256, Stored
from sftjob.records.weights import FileEntry


class SplitCounts(Stored):
    """What became of the rows of one split on their way to tokens. Nothing is dropped without a count.

    kept = rows - skipped - unmixed + repeated + unrolled + split - dropped - without_trained_token
    """

    rows: int
    """In the files, those that cannot be used included."""
    kept: int
    """Rows that are trained on or scored; with packing, before they are packed."""
    skipped: int = 0
    """Could not be used; `data.max_skipped_rows` allows it."""
    unmixed: int = 0
    """Left out of a mix by their source's weight."""
    repeated: int = 0
    """Additional copies in a mix."""
    unrolled: int = 0
    """Additional rows, where the template rewrites earlier turns: each trained turn has a row of its own then."""
    split: int = 0
    """Additional rows, where rows longer than `max_length` were split."""
    dropped: int = 0
    """Longer than `max_length`, and dropped for it."""
    truncated: int = 0
    """Longer than `max_length`, and cut off there."""
    without_trained_token: int = 0
    """Left out, since nothing in them would be learned."""
    left_out: int = 0
    """Messages that are in no row: alternatives in a tree, a last question without an answer."""
    straddling: int = 0
    """Tokens that are part prompt and part answer, and therefore not trained."""
    tokens: int = 0
    trained_tokens: int = 0
    longest: int = 0
    """Tokens of the longest kept row."""
    packs: int | None = None
    """Rows that they were packed into; None without packing."""

    @property
    def prepared(self) -> int:
        """Rows in the prepared file: packs, where there are any."""
        return self.kept if self.packs is None else self.packs


class LengthBin(Stored):
    """Rows whose whole length is above the bin before and at most `up_to` tokens."""

    up_to: int
    rows: int


class SplitAudit(Stored):
    """What is in one split."""

    counts: SplitCounts
    messages_by_role: dict[str, int] = Field(default_factory=dict)
    trained_by_role: dict[str, int] = Field(default_factory=dict)
    """Trained tokens of the kept rows."""
    lengths: tuple[LengthBin, ...] = ()
    """Before anything is cut off; in tokens, or in characters where no tokenizer was given."""
    trained_turns: int = 0
    """Turns that are trained, before anything is cut off."""
    trained_ends: int = 0
    """Of them, those that are trained up to the token that ends them."""
    duplicates: int = 0
    """Rows whose conversation an earlier row of the split has, too."""


class Audit(Record):
    """audit.json among the prepared data: what a person should know of the data before they are trained on."""

    tokenised: bool = True
    """False where no model was named: there are no tokens then."""
    splits: dict[str, SplitAudit]
    overlap: int = 0
    """Held-out rows whose question also occurs in the training rows."""
    overlap_rows: tuple[str, ...] = ()
    """Ids of the first of them."""


class StagedInput(Record):
    """inputs/<sha256>.json: a local input that was uploaded for pods; written when all of its files are there."""

    sha256: Sha256
    """Of the input as a whole, which its folder is named after."""
    files: tuple[FileEntry, ...]
    """`key` is relative to `<storage.uri>`."""


class PreparedData(Record):
    """data/<hash>/<n>/manifest.json: tokenised data; written last. Also attempts/<n>/data.json, naming it."""

    digest: Sha256
    attempt: int
    template_sha256: Sha256
    vocab_size: int
    """Rows that the embedding needs: tokenizer length, added tokens included."""
    added_token_ids: tuple[int, ...] = ()
    """Tokens that the template needs and the model has never seen; their embeddings are trained under every method."""
    splits: dict[str, SplitCounts]
    """`train`, and `eval` where the spec holds rows out."""
    files: tuple[FileEntry, ...]
