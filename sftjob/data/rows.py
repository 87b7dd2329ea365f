"""The files of a split → its rows, one after the other or mixed by weight."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

from sftjob.data.formats import convert_rows, iter_messages
from sftjob.data.inputs import InputFile
from sftjob.data.messages import Row
from sftjob.data.mixing import chosen_rows, mixed_sizes
from sftjob.data.problems import Problems
from sftjob.errors import InputMissing, SftjobError
from sftjob.inputs import Progress
from sftjob.spec.data import Mixing


def read_split(
    files: Sequence[InputFile], *, mixing: Mixing, problems: Problems, counts: Counter[str], progress: Progress = print
) -> Iterator[Row]:
    """Yields the rows of all files; where they have weights, those that the mix takes, and as often as it takes them.

    A mix needs to know how many rows there are, so its files are read twice.

    Args:
        files: of one split.
        mixing: how weighted files are mixed.
        problems: gets the rows that cannot be used.
        counts: gets `unmixed`, the rows that a mix leaves out.
        progress: is given lines for people.
    """
    named = _named(files)
    if any(file.weight is None for file in named):
        yield from chain.from_iterable(read_rows(file, problems, progress) for file in named)
        return
    # Mistakes are booked when the rows are read for the second time.
    sizes = [sum(1 for _ in read_rows(file, Problems(), progress)) for file in named]
    weights = [file.weight or 0.0 for file in named]
    wanted = mixed_sizes([max(size, 1) for size in sizes], weights, mixing.stopping_strategy)
    for place, (file, size, share) in enumerate(zip(named, sizes, wanted, strict=True)):
        copies = chosen_rows(size, share, seed=mixing.seed, source=place) if size else []
        counts["unmixed"] += copies.count(0)
        for row, times in zip(read_rows(file, problems, progress), copies, strict=True):
            yield from (replace(row, copy=copy) for copy in range(times))


def read_rows(file: InputFile, problems: Problems, progress: Progress = print) -> Iterator[Row]:
    """Yields the rows of one file."""
    if file.hub is not None:
        from sftjob.data.hub_rows import scan_hub  # noqa: PLC0415 - imports datasets, which takes seconds

        with _in_source(file):
            raws = scan_hub(file.hub, progress=progress)
            yield from convert_rows(raws, file=file.name, format=file.format, columns=file.columns, problems=problems)
    elif file.path is not None:
        yield from iter_messages(file.path, format=file.format, columns=file.columns, name=file.name, problems=problems)
    else:
        raise InputMissing("neither a file nor a data set on the hub", file=file.name)


@contextmanager
def _in_source(file: InputFile) -> Iterator[None]:
    """Errors name `hub`, `revision`, `config` or `split`; the spec's field stands before them."""
    try:
        yield
    except SftjobError as error:
        fields = (
            replace(each, field=f"{file.field}.{each.field}") if each.field and file.field else each
            for each in error.problems
        )
        raise type(error)(fields) from error


def _named(files: Sequence[InputFile]) -> list[InputFile]:
    """Row ids are made of the name; two files of one name must not share ids."""
    names = Counter(file.name for file in files)
    return [
        file if names[file.name] == 1 else file.model_copy(update={"name": f"{file.name}#{number}"})
        for number, file in enumerate(files)
    ]
