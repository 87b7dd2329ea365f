"""What the supervisor tells `sftjob.data.prepare` through a file; light enough for PID 1 to import."""

from pathlib import Path

from pydantic import Field

from sftjob.records import Record, Stored
from sftjob.spec.data import Format


class InputFile(Stored):
    """One data file that lies on this machine by now."""

    path: Path
    name: str
    """What a person calls it, for messages and row ids."""
    format: Format = "auto"
    columns: dict[str, str] = Field(default_factory=dict)


class PrepareInput(Record):
    """<work>/prepare.json."""

    train: tuple[InputFile, ...]
    eval: tuple[InputFile, ...] = ()
    model: Path
    """Folder of the base model, for its tokenizer."""
    out: Path
    """Folder that appears when everything is in it; a folder that is there already is replaced."""
    attempt: int
    digest: str
    """`data_digest` of what is prepared."""
