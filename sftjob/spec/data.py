"""Where models and data come from, as a person writes it."""

from typing import Annotated, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from sftjob.spec.types import CommitSha, LocalPath, S3Uri, Sha256, SpecModel


class HubModel(SpecModel):
    """A model on the Hugging Face hub. Its token is found as `hf auth login` leaves it, never here."""

    hub: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?$", max_length=96)
    """Repository id, for instance `HuggingFaceH4/zephyr-7b-alpha`."""
    revision: CommitSha
    """Commit of the repository, 40 hex digits: a branch may move, a result must not."""


class LocalModel(SpecModel):
    """A model folder on this machine: config.json, tokenizer.json and *.safetensors."""

    path: LocalPath


class StoredModel(SpecModel):
    """A model folder in S3-compatible storage."""

    uri: S3Uri


class PinnedModel(SpecModel):
    """A local model folder after pinning: its content's hash stands for it. Written by `sftjob`, not by people."""

    sha256: Sha256
    name: str
    """What the folder was called, for messages."""


def _source_key(value: object) -> str | None:
    """Tells the members of a source union apart by the key that names the place."""
    for key in ("hub", "path", "uri", "sha256"):
        if (key in value) if isinstance(value, dict) else hasattr(value, key):
            return key
    return None


ModelSource = Annotated[
    Annotated[HubModel, Tag("hub")]
    | Annotated[LocalModel, Tag("path")]
    | Annotated[StoredModel, Tag("uri")]
    | Annotated[PinnedModel, Tag("sha256")],
    Discriminator(
        _source_key,
        custom_error_type="source",
        custom_error_message="needs one of `hub` (with `revision`), `path` or `uri`",
    ),
]

Format = Literal["auto", "messages", "sharegpt", "alpaca", "guanaco", "oasst", "prompt_completion", "text"]
Column = Literal[
    "messages", "conversations", "role", "content", "tools", "system", "instruction", "input", "output", "history",
    "prompt", "completion", "text", "message_id", "parent_id", "rank",
]  # fmt: skip
FORMAT_COLUMNS: Final[dict[str, tuple[Column, ...]]] = {
    "messages": ("messages", "role", "content", "tools", "system"),
    "sharegpt": ("conversations", "role", "content", "tools", "system"),
    "alpaca": ("instruction", "input", "output", "history", "system"),
    "guanaco": ("text",),
    "oasst": ("prompt", "message_id", "parent_id", "role", "text", "rank"),
    "prompt_completion": ("prompt", "completion", "system", "tools"),
    "text": ("text",),
}
"""The columns of each format that `columns` may rename."""


class _Rows(SpecModel):
    format: Format = "auto"
    """Shape of a row; `auto` goes by the columns of the first row."""
    columns: dict[Column, str] = Field(default_factory=dict)
    """Names in the file for the format's own columns, for instance `{prompt: question, completion: answer}`."""
    weight: float | None = Field(default=None, gt=0, lt=1e6)
    """Share of the mix that comes from here, relative to the other sources' weights; all sources have one, or none."""
    streaming: bool = False
    """Only `false`: a stream has no exact row to resume at."""

    @model_validator(mode="after")
    def _takes_columns(self) -> Self:
        if self.streaming:
            raise ValueError(
                "a streamed source cannot be trained on: a run that is killed goes on at its exact row, and a stream "
                "has no such place; leave `streaming` out, the rows are fetched once and kept with the run"
            )
        known = FORMAT_COLUMNS.get(self.format)
        if known and (unknown := sorted(set(self.columns) - set(known))):
            raise ValueError(
                f"the format `{self.format}` has no column `{unknown[0]}` to rename; it has {', '.join(known)}"
            )
        return self


class HubData(_Rows):
    """A data set on the Hugging Face hub. Its token is found as `hf auth login` leaves it, never here."""

    hub: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?$", max_length=96)
    """Repository id, for instance `yahma/alpaca-cleaned`."""
    revision: CommitSha
    """Commit of the repository, 40 hex digits: a branch may move, a result must not."""
    config: str | None = Field(default=None, min_length=1, max_length=200)
    """Configuration (subset) of the data set; needed where it has several and none is called `default`."""
    split: str = Field(default="train", min_length=1, max_length=200)
    """Split of the data set. Slices (`train[:10%]`) are not taken: use `weight`, or a file of your own."""


class LocalData(_Rows):
    """A data file on this machine: JSON Lines, JSON, CSV, Parquet or Arrow; also compressed by gzip or zstd."""

    path: LocalPath


class StoredData(_Rows):
    """A data file in S3-compatible storage, of the same kinds."""

    uri: S3Uri


class PinnedData(_Rows):
    """A local file after pinning: its content's hash stands for it. Written by `sftjob`, not by people."""

    sha256: Sha256
    name: str
    """What the file was called, for messages."""


FileData = LocalData | StoredData | PinnedData
DataSource = Annotated[
    Annotated[HubData, Tag("hub")]
    | Annotated[LocalData, Tag("path")]
    | Annotated[StoredData, Tag("uri")]
    | Annotated[PinnedData, Tag("sha256")],
    Discriminator(
        _source_key,
        custom_error_type="source",
        custom_error_message="needs one of `hub` (with `revision`), `path` or `uri`",
    ),
]


class TemplateFile(SpecModel):
    """A chat template in a file of its own. `sftjob` puts the text in its place before the run gets its id."""

    path: LocalPath
    """Jinja file, as transformers writes them (chat_template.jinja)."""


class TemplateText(SpecModel):
    """A chat template written out."""

    jinja: str = Field(min_length=1, max_length=65_536)
    """Jinja source with `messages`, `tools` and `add_generation_prompt`."""


def _template_kind(value: object) -> str | None:
    if isinstance(value, str):
        return "name"
    for key in ("path", "jinja"):
        if (key in value) if isinstance(value, dict) else hasattr(value, key):
            return key
    return None


Template = Annotated[
    Annotated[Literal["model", "chatml"], Tag("name")]
    | Annotated[TemplateFile, Tag("path")]
    | Annotated[TemplateText, Tag("jinja")],
    Discriminator(
        _template_kind,
        custom_error_type="source",
        custom_error_message="needs `model`, `chatml`, or one of `path` and `jinja` below it",
    ),
]
TrainOn = Literal["assistant", "last_assistant", "all"]
Overlong = Literal["truncate", "split", "drop"]


class Mixing(SpecModel):
    """How weighted sources are mixed."""

    stopping_strategy: Literal["first_exhausted", "all_exhausted"] = "first_exhausted"
    """`first_exhausted` repeats no row: the mix ends with the source that runs out first. `all_exhausted` repeats rows
    until every source was used up."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Chooses rows and their order."""


class Data(SpecModel):
    """Training and held-out rows, and how they become text."""

    train: tuple[DataSource, ...] = Field(min_length=1)
    """Read one after the other, or mixed where they have weights."""
    eval: tuple[DataSource, ...] = ()
    """Rows held out: their loss is followed during training, and the evaluation scores them."""
    mixing: Mixing = Mixing()
    template: Template = "model"
    """Chat template: the model's own, ChatML (whose two tokens are added and trained where the model lacks them), or
    one of yours."""
    train_on: TrainOn = "assistant"
    """Which turns are trained; a message's own `train` flag overrules it."""
    overlong: Overlong = "truncate"
    """What becomes of rows longer than `training.max_length`: their end is cut off, they are split into several rows,
    or they are dropped. Each is counted. Held-out rows are cut where others are split."""
    max_skipped_rows: int = Field(default=0, ge=0)
    """Rows that cannot be used and may be left out, of all files together; one more stops the job."""
    max_overlap: float = Field(default=0.01, ge=0, le=1)
    """Share of held-out rows whose question also occurs in the training rows; more stops the job."""

    @model_validator(mode="after")
    def _all_weighted_or_none(self) -> Self:
        weighted = [source.weight is not None for source in self.train]
        if any(weighted) and not all(weighted):
            raise ValueError(f"`train.{weighted.index(False)}` has no `weight`, others have; give all of them one")
        if any(source.weight is not None for source in self.eval):
            raise ValueError("`weight` is for training rows; held-out rows are all scored")
        return self
