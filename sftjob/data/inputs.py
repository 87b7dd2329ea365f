"""What the supervisor tells `sftjob.data.prepare` through a file; light enough for PID 1 to import."""

from pathlib import Path

from pydantic import Field

from sftjob.records import Record, Stored
from sftjob.spec import HubData
from sftjob.spec.data import Format


class InputFile(Stored):
    """One data file that lies on this machine by now, or a data set that is still on the hub."""

    name: str
    """What a person calls it, for messages and row ids."""
    path: Path | None = None
    """None for a data set on the hub."""
    hub: HubData | None = None
    format: Format = "auto"
    columns: dict[str, str] = Field(default_factory=dict)
    weight: float | None = None
    """Share of the mix."""
    field: str = ""
    """Where the spec names it, for instance `data.train.0`."""


def hub_name(source: HubData) -> str:
    """What a person calls a data set on the hub: `owner/name@1a2b3c4d/config/train`."""
    return "/".join(filter(None, (f"{source.hub}@{source.revision[:8]}", source.config, source.split)))


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
