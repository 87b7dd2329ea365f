"""Models and data sets on the Hugging Face hub. The only module that imports huggingface_hub; others import it late.

Endpoint, cache and token are the hub library's own: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, `hf auth login`.
"""

import errno
import glob
import logging
import textwrap
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    tqdm,
)

from sftjob.errors import ConfigurationError, Denied, DiskFull, InputMissing, SftjobError, SpecError
from sftjob.inputs import ByteProgress, Progress
from sftjob.model_folder import CONFIG, INDEX, SMALL_FILES, WEIGHTS, check_model_folder, weight_files
from sftjob.spec import HubData, HubModel

Source = HubModel | HubData
_CARD: Final = "README.md"
_LOG_IN: Final = "set HF_TOKEN or run `hf auth login`"


class CacheRefused(ConfigurationError):
    """The hub's cache cannot be written."""


def link_model(source: HubModel, folder: Path, progress: Progress, *, cache: Path | None = None) -> None:
    """Fills an empty folder with links to the model's files in the hub's cache, fetching what the cache lacks.

    A cache that holds the pinned revision whole is enough: then no network is needed.

    Args:
        cache: instead of the hub library's own.

    Raises:
        InputMissing, Denied, SpecError, ConfigurationError, DiskFull: see `_hub_error`.
    """
    bar = _bar(progress, f"fetching {source.hub}")

    def snapshot(patterns: Collection[str]) -> Path:
        return Path(
            snapshot_download(
                source.hub,
                revision=source.revision,
                allow_patterns=list(patterns),
                cache_dir=cache,
                endpoint=constants.ENDPOINT,
                tqdm_class=bar,
            )
        )

    _announce(source, progress)
    listing: list[str] | None = None
    with hub_errors(source, cache):
        index = snapshot(SMALL_FILES) / INDEX
        # An index names its own shards; without one there is at most one file.
        weights = weight_files((), index.read_bytes()) if index.is_file() else (WEIGHTS,)
        cached = snapshot([*SMALL_FILES, *weights])
        if not any((cached / file).is_file() for file in weights):
            listing = HfApi(endpoint=constants.ENDPOINT).list_repo_files(source.hub, revision=source.revision)
    # The cache may hold more than was asked for, a model's Python code for instance: link what was.
    for file in (*SMALL_FILES, *weights):
        if (cached / file).is_file():
            (folder / file).symlink_to((cached / file).resolve())
    check_model_folder(folder, name=source.hub, listing=listing)


def link_small_files(source: HubModel, folder: Path, progress: Progress) -> None:
    """Fills an empty folder with links to everything of the model but its weights. Errors as `link_model`."""
    _announce(source, progress)
    with hub_errors(source):
        cached = Path(
            snapshot_download(
                source.hub,
                revision=source.revision,
                allow_patterns=list(SMALL_FILES),
                endpoint=constants.ENDPOINT,
                tqdm_class=_bar(progress, f"fetching {source.hub}"),
            )
        )
    for file in SMALL_FILES:
        if (cached / file).is_file():
            (folder / file).symlink_to((cached / file).resolve())


def read_config(source: HubModel) -> bytes:
    """The model's config.json. Errors as `link_model`."""
    with hub_errors(source):
        path = hf_hub_download(source.hub, CONFIG, revision=source.revision, endpoint=constants.ENDPOINT)
        return Path(path).read_bytes()


def find_data(source: HubData, progress: Progress) -> None:
    """Asks for a data set's revision, so that a refusal of the hub is told as such before others wrap it.

    Raises:
        InputMissing, Denied, SpecError, ConfigurationError, DiskFull: see `_hub_error`.
    """
    with hub_errors(source):
        if constants.HF_HUB_OFFLINE:
            raise OfflineModeIsEnabled
        _announce(source, progress)
        HfApi(endpoint=constants.ENDPOINT).dataset_info(source.hub, revision=source.revision)
        with suppress(EntryNotFoundError):  # a gated one tells its facts to anybody, but not its files
            hf_hub_download(
                source.hub, _CARD, repo_type="dataset", revision=source.revision, endpoint=constants.ENDPOINT
            )


def cached_card(source: HubData) -> Path | None:
    """README.md of a data set's revision, if the hub's cache holds it."""
    path = try_to_load_from_cache(source.hub, _CARD, revision=source.revision, repo_type="dataset")
    return Path(path) if isinstance(path, str) else None


def fetch_data_files(source: HubData, files: Collection[str], progress: Progress) -> None:
    """Fetches files of a data set into the hub's cache, where `datasets` finds them. Errors as `find_data`."""
    with hub_errors(source):
        snapshot_download(
            source.hub,
            repo_type="dataset",
            revision=source.revision,
            allow_patterns=[glob.escape(file) for file in files],
            endpoint=constants.ENDPOINT,
            tqdm_class=_bar(progress, f"fetching {source.hub}"),
        )


@contextmanager
def hub_errors(source: Source, cache: Path | None = None) -> Iterator[None]:
    """Turns whatever the hub library raises into one line with its repair, and keeps its bars and warnings quiet.

    Args:
        source: for the messages.
        cache: where it is not the hub library's own.
    """
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    bars = not are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    if bars:
        disable_progress_bars()
    try:
        yield
    except SftjobError:
        raise
    except Exception as error:  # of its HTTP client, xet, the file system: its own tree covers only some
        raise _hub_error(error, source, cache or Path(_cache(source))) from error
    finally:
        logger.setLevel(level)
        if bars:
            enable_progress_bars()


def _announce(source: Source, progress: Progress) -> None:
    progress(f"fetching {source.hub} at {source.revision[:8]} from {constants.ENDPOINT}")


def _bar(progress: Progress, what: str) -> type[tqdm]:
    """A progress bar class for the hub library that draws nothing and reports bytes as lines."""
    gauge = ByteProgress(progress, what)

    class Lines(tqdm):
        def __init__(self, *args: object, **kwargs: object) -> None:
            self.counts_bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **(kwargs | {"disable": True}))  # type: ignore[no-untyped-call]  # it has no types

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self.counts_bytes:
                gauge.reach(int(self.n), int(self.total or self.n))

    return Lines


def _hub_error(error: Exception, source: Source, cache: Path) -> SftjobError:
    field = _field(source, "hub")
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return _hub_error(error.__cause__, source, cache)  # "not in the cache either" hides why the hub did not give it
    if isinstance(error, OfflineModeIsEnabled):
        return InputMissing(
            f"{source.hub} is not whole in the cache {cache}, and HF_HUB_OFFLINE=1 forbids fetching",
            field=field,
            hint=f"unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE once; {_instead(source)}",
        )
    if isinstance(error, HfHubHTTPError):
        return _http_error(error, source)
    if isinstance(error, HFValidationError):
        return SpecError(
            f"{source.hub} is not the id of a repository", field=field, hint="write `owner/name` as the hub shows it"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return _cache_error(error, source, cache)
    detail = textwrap.shorten(str(error), 200, placeholder=" …")
    return InputMissing(
        f"cannot fetch {source.hub} from {constants.ENDPOINT} ({type(error).__name__}: {detail})",
        field=field,
        hint=f"check the network, the proxy and HF_ENDPOINT; {_instead(source)}",
    )


def _http_error(error: HfHubHTTPError, source: Source) -> SftjobError:
    hub, endpoint, status = source.hub, constants.ENDPOINT, error.response.status_code
    page = f"{endpoint}/{hub}" if isinstance(source, HubModel) else f"{endpoint}/datasets/{hub}"
    field = _field(source, "hub")
    if isinstance(error, GatedRepoError):
        reason = f"{hub} is gated: its owner wants its terms accepted first"
        return Denied(reason, field=field, hint=f"accept them at {page}, then {_LOG_IN}")
    if isinstance(error, RevisionNotFoundError):
        hint = f"`git ls-remote {page} HEAD` prints the newest one"
        return InputMissing(f"{hub} has no commit {source.revision}", field=_field(source, "revision"), hint=hint)
    if isinstance(error, EntryNotFoundError) and isinstance(source, HubModel):
        return InputMissing(f"no {CONFIG} in {hub}", hint="name a repository that holds a whole model")
    if status in (401, 403):
        sent_token = "authorization" in error.response.request.headers
        return _refusal(status, sent_token=sent_token, hub=hub, field=field)
    if status == 404 and not isinstance(error, EntryNotFoundError):
        return InputMissing(
            f"no repository {hub} at {endpoint}", field=field, hint=f"check the id; if it is private, {_LOG_IN}"
        )
    what = "limits its requests (429)" if status == 429 else f"answers {status}"
    return InputMissing(
        f"cannot fetch {hub}: {endpoint} {what}", field=field, hint=f"try again later; {_instead(source)}"
    )


def _refusal(status: int, *, sent_token: bool, hub: str, field: str) -> Denied:
    """The hub answers 401 for what is private as for what does not exist, so that nobody can tell them apart."""
    if not sent_token:
        reason = f"{hub} is private or does not exist, and no token was sent ({status})"
        return Denied(reason, field=field, hint=f"check the id, then {_LOG_IN}")
    reason = f"the hub refuses the token for {hub} ({status})"
    return Denied(
        reason, field=field, hint="make a token that may read it, then set HF_TOKEN or run `hf auth login` again"
    )


def _cache_error(error: OSError, source: Source, cache: Path) -> SftjobError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left for {source.hub} in {cache}", hint="free some or set HF_HOME")
    reason = f"the hub's cache {cache} cannot be written"
    return CacheRefused(reason, hint="set HF_HOME to a folder that can")


def _field(source: Source, key: str) -> str:
    """A data source is one of several: its caller knows the way to it."""
    return f"model.{key}" if isinstance(source, HubModel) else key


def _instead(source: Source) -> str:
    return f"a local {'folder works as `model.path`' if isinstance(source, HubModel) else 'file works as `path`'}"


def _cache(source: Source) -> str:
    """Data sets have a cache of their own beside that of files; one variable moves both."""
    return constants.HF_HUB_CACHE if isinstance(source, HubModel) else constants.HF_HOME
