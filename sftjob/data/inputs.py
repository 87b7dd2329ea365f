"""What the supervisor tells `sftjob.data.prepare` through a file; light enough for PID 1 to import."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import Field

from sftjob.inputs import in_field
from sftjob.records import Record, Stored
from sftjob.spec import DataSource, FileData, HubData
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


def input_files(
    sources: Sequence[DataSource], split: str, fetch: Callable[[FileData], tuple[Path, str]]
) -> Iterator[InputFile]:
    """The sources of a split on this machine.

    Args:
        sources: in the order of the spec.
        split: `train` or `eval`.
        fetch: brings a file here and says what a person calls it. Data sets on the hub are fetched when they are read.

    Raises:
        SftjobError: of `fetch`, with the source's field.
    """
    for number, source in enumerate(sources):
        field = f"data.{split}.{number}"
        how = source.model_dump(include={"format", "columns", "weight"})
        if isinstance(source, HubData):
            yield InputFile(name=hub_name(source), hub=source, field=field, **how)
            continue
        with in_field(field):
            path, name = fetch(source)
        yield InputFile(path=path, name=name, field=field, **how)


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
