"""What `sftjob data` works on: the data of a spec, or a data file with options, and the tokenizer of a model."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from sftjob.data.inputs import InputFile, input_files
from sftjob.errors import SftjobError, SpecError
from sftjob.inputs import Progress, fetch_data, read_template
from sftjob.model_source import fetch_config, fetch_tokenizer
from sftjob.plan import model_facts
from sftjob.resolve import MAX_LENGTH_DEFAULT, max_length_of, resolve
from sftjob.spec import (
    Data,
    FileData,
    HubModel,
    LoadedSpec,
    LocalData,
    LocalModel,
    ModelSource,
    StoredModel,
    TemplateFile,
    load_spec,
)
from sftjob.spec.problems import problems_of

SPEC_SUFFIXES: Final = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Data files on this machine and what is done with them."""

    data: Data
    """With the template's text in it."""
    files: Mapping[str, tuple[InputFile, ...]]
    """`train` and, where rows are held out, `eval`."""
    model: Path | None
    """The folder of the model's tokenizer; None where no model was named."""
    max_length: int
    vocab_size: int | None
    """Rows of the model's embeddings, where they are known."""


@contextmanager
def open_data(
    source: Path,
    held_out: Path | None,
    options: Mapping[str, object],
    *,
    model: str | None = None,
    max_length: int | None = None,
    overrides: Sequence[str] | None = None,
    progress: Progress,
) -> Iterator[DataSet]:
    """What a person names on the command line: a spec, which says everything itself, or a data file and its options.

    Raises:
        SpecError: options of a file beside a spec, or the other way round.
        SftjobError: of `data_of_spec` and `data_of_file`.
    """
    if source.suffix in SPEC_SUFFIXES:
        if options or held_out or model is not None or max_length:
            raise SpecError(
                "a spec says this itself", file=str(source), hint="use --set, for instance data.train_on=all"
            )
        with data_of_spec(load_spec(source, overrides=overrides or []), progress) as given:
            yield given
        return
    if overrides:
        raise SpecError("--set changes a spec, this is a data file", file=str(source), hint="see `--help`")
    with data_of_file(
        source, held_out, options=options, model=model, max_length=max_length, progress=progress
    ) as given:
        yield given


@contextmanager
def data_of_spec(loaded: LoadedSpec, progress: Progress) -> Iterator[DataSet]:
    """The data of a spec, and the tokenizer of its model; what must be fetched is removed at the end of the block.

    Raises:
        SftjobError: an input is missing or the spec does not fit its model, with file and line.
    """
    spec = loaded.spec
    try:
        with tempfile.TemporaryDirectory(prefix="sftjob-data-") as scratch:
            model = _located_model(spec.model, loaded.folder)
            storage = {"endpoint_url": spec.storage.endpoint_url, "region": spec.storage.region}
            facts = model_facts(fetch_config(model, store_root=None, inputs={}, **storage))
            yield DataSet(
                data=_with_template(spec.data, loaded.folder),
                files=_files(spec.data, lambda source: _fetch(source, loaded.folder, Path(scratch), storage)),
                model=fetch_tokenizer(model, Path(scratch) / "model", progress=progress, **storage),
                max_length=resolve(spec, facts).training.max_length,
                vocab_size=facts.vocab_size,
            )
    except SftjobError as error:
        raise loaded.located(error) from error


@contextmanager
def data_of_file(
    train: Path,
    held_out: Path | None,
    *,
    options: Mapping[str, object],
    model: str | None,
    max_length: int | None,
    progress: Progress,
) -> Iterator[DataSet]:
    """A data file that no spec names.

    Args:
        train: its rows are read as training rows.
        held_out: file of held-out rows.
        options: of a spec's data block (`template`, `train_on`, …); `format` and `columns` go for the files.
        model: folder, `owner/name@revision` on the hub, or `s3://…`; without it nothing is tokenised.
        max_length: tokens of a row; by default what training would take.
        progress: is given lines for people.
    """
    if model is None and (useless := [name for name in ("template", "train_on") if name in options]):
        flag = useless[0].replace("_", "-")
        raise SpecError("says nothing without a model", field=f"--{flag}", hint="give --model FOLDER")
    if model is None and max_length:
        raise SpecError("counts tokens, and without a model there are none", field="--max-length", hint="give --model")
    data = _data_block({"train": train, **({"eval": held_out} if held_out else {})}, options)
    with tempfile.TemporaryDirectory(prefix="sftjob-data-") as scratch:
        source = parse_model(model) if model is not None else None
        facts = model_facts(fetch_config(source, store_root=None, inputs={})) if source else None
        yield DataSet(
            data=data,
            files=_files(data, lambda source: _fetch(source, Path(), Path(scratch), {})),
            model=fetch_tokenizer(source, Path(scratch) / "model", progress=progress) if source else None,
            max_length=max_length_of(max_length, facts) if facts else MAX_LENGTH_DEFAULT,
            vocab_size=facts.vocab_size if facts else None,
        )


def parse_model(text: str) -> ModelSource:
    """What a person means by `--model`.

    Raises:
        SpecError: a hub id without its revision.
    """
    if not text:
        raise SpecError("is empty", field="--model", hint="name a folder, owner/name@revision or s3://…")
    if text.startswith("s3://"):
        return StoredModel(uri=text)
    if Path(text).exists() or "@" not in text:
        return LocalModel(path=text)
    hub, _, revision = text.rpartition("@")
    if len(revision) != 40:
        raise SpecError(f"{text} names no commit", field="--model", hint="write owner/name@<40 hex digits>")
    return HubModel(hub=hub, revision=revision)


def template_option(text: str) -> object:
    """What a person means by `--template`: a name, or a file."""
    return text if text in ("model", "chatml") else {"jinja": read_template(Path(text)).jinja}


def column_names(pairs: Sequence[str]) -> dict[str, str]:
    """`--column prompt=question` for each.

    Raises:
        SpecError: a pair without `=`.
    """
    names = [pair.partition("=") for pair in pairs]
    if wrong := next((pair for pair, name in zip(pairs, names, strict=True) if not (name[0] and name[2])), None):
        raise SpecError(f"`{wrong}` is no pair", field="--column", hint="write for instance --column prompt=question")
    return {column: name for column, _, name in names}


def _data_block(files: Mapping[str, Path], options: Mapping[str, object]) -> Data:
    how = {key: options[key] for key in ("format", "columns") if key in options}
    block = {
        **{key: value for key, value in options.items() if key not in how},
        **{split: [{"path": str(path), **how}] for split, path in files.items()},
    }
    try:
        return Data.model_validate_json(json.dumps(block))
    except ValidationError as error:
        raise SpecError(problems_of(error, Data)) from error


def _files(data: Data, fetch: Callable[[FileData], tuple[Path, str]]) -> dict[str, tuple[InputFile, ...]]:
    splits = {"train": data.train, "eval": data.eval}
    return {split: tuple(input_files(sources, split, fetch)) for split, sources in splits.items() if sources}


def _with_template(data: Data, folder: Path) -> Data:
    """The data block with the template's text in it."""
    if not isinstance(data.template, TemplateFile):
        return data
    return data.model_copy(update={"template": read_template(folder / Path(data.template.path).expanduser())})


def _located_model(source: ModelSource, folder: Path) -> ModelSource:
    return LocalModel(path=str(folder / Path(source.path).expanduser())) if isinstance(source, LocalModel) else source


def _fetch(source: FileData, folder: Path, scratch: Path, storage: Mapping[str, str | None]) -> tuple[Path, str]:
    """The file, under the name that the person wrote."""
    if not isinstance(source, LocalData):
        return fetch_data(source, scratch, store_root=None, inputs={}, **storage)
    here = source.model_copy(update={"path": str(folder / Path(source.path).expanduser())})
    path, _ = fetch_data(here, scratch, store_root=None, inputs={}, **storage)
    return path, source.path
