"""Where models and data come from, as a person writes it."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

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

Format = Literal["auto", "messages", "prompt_completion"]
MESSAGES_COLUMNS = ("messages",)
PROMPT_COMPLETION_COLUMNS = ("prompt", "completion", "system")


class _Rows(SpecModel):
    format: Format = "auto"
    """Shape of a row; `auto` goes by the columns of the first row."""
    columns: dict[Literal["messages", "prompt", "completion", "system"], str] = Field(default_factory=dict)
    """Names in the file for the format's own columns, for instance `{prompt: question, completion: answer}`."""


class LocalData(_Rows):
    """A JSON Lines (or JSON array) file on this machine."""

    path: LocalPath


class StoredData(_Rows):
    """A JSON Lines (or JSON array) object in S3-compatible storage."""

    uri: S3Uri


class PinnedData(_Rows):
    """A local file after pinning: its content's hash stands for it. Written by `sftjob`, not by people."""

    sha256: Sha256
    name: str
    """What the file was called, for messages."""


DataSource = Annotated[
    Annotated[LocalData, Tag("path")] | Annotated[StoredData, Tag("uri")] | Annotated[PinnedData, Tag("sha256")],
    Discriminator(_source_key, custom_error_type="source", custom_error_message="needs one of `path` or `uri`"),
]


class Data(SpecModel):
    """Training and held-out rows, and how they become text."""

    train: tuple[DataSource, ...] = Field(min_length=1)
    """Read one after the other."""
    eval: tuple[DataSource, ...] = ()
    """Rows held out: their loss is followed during training, and the evaluation scores them."""
    template: Literal["model", "chatml"] = "model"
    """Chat template: the model's own, or ChatML, whose two tokens are added and trained where the model lacks them."""
    train_on: Literal["assistant", "all"] = "assistant"
    """Which turns are trained."""
