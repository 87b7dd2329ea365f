"""Data sets on the Hugging Face hub → rows with their number, by way of `datasets`, which takes seconds to import.

`datasets` fetches the files and keeps them as Arrow files in its cache (HF_DATASETS_CACHE); those are read like any
other. It runs no code of a repository. What its cache holds at the pinned revision is used without asking the hub.
"""

import errno
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sftjob.data.inputs import hub_name
from sftjob.data.raw_rows import RawRow, broken
from sftjob.errors import DataError, InputMissing, SftjobError, SpecError
from sftjob.inputs import Progress
from sftjob.spec.data import HubData

_SPLIT: Final = re.compile(r"\w+([.-]\w+)*")
_LISTED: Final = re.compile(r"\[([^\]]*)\]")
_SHOWN: Final = 10
_LOOK: Final = "download the file and name it with `path`: then messages name its lines"
_TRANSPORT: Final = re.compile(r"(httpx|httpcore|huggingface_hub|hf_xet)")
"""Packages whose errors are about the way to the hub, whatever wraps them."""
_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def scan_hub(source: HubData, *, progress: Progress) -> Iterator[RawRow]:
    """Yields the rows of a split; as `scan_rows`, broken ones too.

    Args:
        progress: is given lines for people.

    Raises:
        SpecError: `split` is a slice or a mix of splits; `hub` is no id of a repository.
        InputMissing: the repository, revision, config or split is not there or out of reach, or has no data files.
        Denied: the hub refuses.
        DataError: `datasets` cannot make rows of the files.
        ConfigurationError, DiskFull: the cache cannot be written.
    """
    _check_split(source.split)
    from sftjob import hub  # noqa: PLC0415 - huggingface_hub, as in sftjob.model_source
    from sftjob.data.table_rows import scan_arrow_streams  # noqa: PLC0415 - pyarrow, as in sftjob.data.sources

    with _quiet(), hub.hub_errors(source):
        builder = _cached(source) or _fetched(source, progress)
        rows = _split_info(builder, source).num_examples
        # Without rows `datasets` refuses to make a data set.
        files = [Path(file["filename"]) for file in builder.as_dataset(split=source.split).cache_files] if rows else []
    if not files:
        yield broken(hub_name(source), 0, "no rows", hint="the split is empty")
        return
    yield from scan_arrow_streams(files, hub_name(source))


def _check_split(split: str) -> None:
    if not _SPLIT.fullmatch(split) or split == "all":
        raise SpecError(
            "must name one split, not a slice or a mix of splits",
            field="split",
            hint="name several sources to join splits, use `weight` or a file of your own to take a part",
        )


def _cached(source: HubData) -> Any:
    """The builder of what `datasets` keeps at this revision, None where it keeps nothing.

    Its own way to its cache takes the newest revision when the hub is out of reach; this one takes no other.
    """
    from datasets.packaged_modules.cache.cache import Cache  # noqa: PLC0415 - see the module

    config = source.config or _default_config(source)
    if config is None:
        return None
    name = source.hub.rpartition("/")[2]
    builder = Cache(repo_id=source.hub, dataset_name=name, config_name=config, hash=source.revision)
    return builder if builder.info.splits else None


def _default_config(source: HubData) -> str | None:
    """What `datasets` takes where no config is named, told without the hub; None where nobody can tell."""
    from datasets.info import DatasetInfosDict  # noqa: PLC0415 - see the module
    from datasets.load import DatasetCard  # noqa: PLC0415
    from datasets.utils.metadata import MetadataConfigs  # noqa: PLC0415

    from sftjob import hub  # noqa: PLC0415 - huggingface_hub, as in sftjob.model_source

    card = hub.cached_card(source)
    if card is None:
        return "default"
    data = DatasetCard.load(card).data
    configs, infos = MetadataConfigs.from_dataset_card_data(data), DatasetInfosDict.from_dataset_card_data(data)
    name: str | None = configs.get_default_config_name() if configs else "default"
    if name is None or not configs:
        name = next(iter(infos)) if len(infos) == 1 else name
    return name


def _fetched(source: HubData, progress: Progress) -> Any:
    import datasets  # noqa: PLC0415 - see the module

    from sftjob import hub  # noqa: PLC0415 - as above

    hub.find_data(source, progress)
    with _data_errors(source):
        # The prefix keeps a folder of that name in the working directory from being meant.
        builder = datasets.load_dataset_builder(
            f"hf://datasets/{source.hub}", name=source.config, revision=source.revision
        )
    if builder.hash != source.revision or not builder.config.data_files:
        raise ConnectionError("the cache of `datasets` holds other revisions or configs alone")
    _split_info(builder, source)
    prefix = f"hf://datasets/{source.hub}@{source.revision}/"
    named = [str(file) for files in builder.config.data_files.values() for file in files]
    hub.fetch_data_files(source, [file.removeprefix(prefix) for file in named if file.startswith(prefix)], progress)
    with _data_errors(source):
        # Counts in README.md are often those of an older commit.
        builder.download_and_prepare(verification_mode="no_checks")
    return builder


def _split_info(builder: Any, source: HubData) -> Any:
    splits = builder.info.splits or builder.config.data_files
    if source.split not in splits:
        raise InputMissing(
            f"{source.hub} has no split `{source.split}`", field="split", hint=f"it has {_listed(list(splits))}"
        )
    return splits[source.split]


@contextmanager
def _data_errors(source: HubData) -> Iterator[None]:
    """Turns what `datasets` raises into one line, and lets what is about the way to the hub or the disk through."""
    try:
        yield
    except SftjobError:
        raise
    except Exception as error:
        passed = next((cause for cause in _causes(error) if _is_transport(cause)), None)
        raise passed or _data_error(error, source) from error


def _data_error(error: Exception, source: HubData) -> SftjobError:
    """Messages of `datasets` may quote rows: what is shown of them are names of configs."""
    from datasets.table import CastError  # noqa: PLC0415 - see the module

    text, hub = str(error), source.hub
    if "scripts are no longer supported" in text:
        hint = "pin a commit of its branch refs/convert/parquet, or name files with `path`"
        return InputMissing(f"{hub} is a loading script, and no code of others is run", field="hub", hint=hint)
    if isinstance(error, FileNotFoundError):
        hint = "it needs JSON, JSON Lines, CSV, Parquet or Arrow files, and those that its README.md names"
        return InputMissing(f"{hub} holds no data files that can be read", field="hub", hint=hint)
    configs = _LISTED.search(text)
    if isinstance(error, ValueError) and configs and ("BuilderConfig" in text or "Config name is missing" in text):
        names = _listed([name.strip(" '\"") for name in configs[1].split(",")])
        if source.config is None:
            return InputMissing(f"{hub} has several configs", field="config", hint=f"name one of {names}")
        return InputMissing(f"{hub} has no config `{source.config}`", field="config", hint=f"it has {names}")
    if any(isinstance(cause, CastError) for cause in _causes(error)):
        reason = "the files of the data set do not have the same columns"
        return DataError(reason, file=hub_name(source), hint="name another `config`, or a file of your own with `path`")
    reason = f"`datasets` cannot make rows of the data set's files ({type(_causes(error)[-1]).__name__})"
    return DataError(reason, file=hub_name(source), hint=_LOOK)


def _causes(error: Exception) -> list[Exception]:
    causes = [error]
    while isinstance(cause := causes[-1].__cause__, Exception):
        causes.append(cause)
    return causes


def _is_transport(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in _DISK:
        return True
    return isinstance(error, ConnectionError) or _TRANSPORT.match(type(error).__module__) is not None


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"`{name[:30]}`" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars, no log lines (they may quote rows), no counting of downloads at a host that is not the hub."""
    import datasets  # noqa: PLC0415 - see the module

    logger = logging.getLogger("datasets")
    level, bars = logger.level, not datasets.utils.are_progress_bars_disabled()
    counts = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS
    logger.setLevel(logging.CRITICAL)
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if bars:
                datasets.utils.disable_progress_bars()
            yield
    finally:
        logger.setLevel(level)
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counts
        if bars:
            datasets.utils.enable_progress_bars()
