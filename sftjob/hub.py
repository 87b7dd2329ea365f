"""Models on the Hugging Face hub. The only module that imports huggingface_hub; `sftjob.model_source` imports it late.

Endpoint, cache and token are the hub library's own: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, `hf auth login`.
"""

import errno
import logging
import textwrap
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from sftjob.errors import ConfigurationError, Denied, DiskFull, InputMissing, SftjobError, SpecError
from sftjob.inputs import ByteProgress, Progress
from sftjob.model_folder import CONFIG, INDEX, SMALL_FILES, WEIGHTS, check_model_folder, weight_files
from sftjob.spec import HubModel

_INSTEAD: Final = "a local folder works as `model.path`"
_LOG_IN: Final = "set HF_TOKEN or run `hf auth login`"


def link_model(source: HubModel, folder: Path, progress: Progress) -> None:
    """Fills an empty folder with links to the model's files in the hub's cache, fetching what the cache lacks.

    A cache that holds the pinned revision whole is enough: then no network is needed.

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
                endpoint=constants.ENDPOINT,
                tqdm_class=bar,
            )
        )

    progress(f"fetching {source.hub} at {source.revision[:8]} from {constants.ENDPOINT}")
    listing: list[str] | None = None
    with _hub_errors(source):
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


def read_config(source: HubModel) -> bytes:
    """The model's config.json. Errors as `link_model`."""
    with _hub_errors(source):
        path = hf_hub_download(source.hub, CONFIG, revision=source.revision, endpoint=constants.ENDPOINT)
        return Path(path).read_bytes()


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


@contextmanager
def _hub_errors(source: HubModel) -> Iterator[None]:
    """Turns whatever the hub library raises into one line with its repair, and keeps its own warnings quiet."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except Exception as error:  # of its HTTP client, xet, the file system: its own tree covers only some
        raise _hub_error(error, source) from error
    finally:
        logger.setLevel(level)


def _hub_error(error: Exception, source: HubModel) -> SftjobError:
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return _hub_error(error.__cause__, source)  # "not in the cache either" hides why the hub did not give it
    if isinstance(error, OfflineModeIsEnabled):
        return InputMissing(
            f"{source.hub} is not whole in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE=1 forbids fetching",
            hint=f"unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE once; {_INSTEAD}",
        )
    if isinstance(error, HfHubHTTPError):
        return _http_error(error, source)
    if isinstance(error, HFValidationError):
        return SpecError(f"{source.hub} is not the id of a repository", hint="write `owner/name` as the hub shows it")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return _cache_error(error, source)
    detail = textwrap.shorten(str(error), 200, placeholder=" …")
    return InputMissing(
        f"cannot fetch {source.hub} from {constants.ENDPOINT} ({type(error).__name__}: {detail})",
        hint=f"check the network, the proxy and HF_ENDPOINT; {_INSTEAD}",
    )


def _http_error(error: HfHubHTTPError, source: HubModel) -> SftjobError:
    hub, endpoint, status = source.hub, constants.ENDPOINT, error.response.status_code
    if isinstance(error, GatedRepoError):
        reason = f"{hub} is gated: its owner wants its terms accepted first"
        return Denied(reason, hint=f"accept them at {endpoint}/{hub}, then {_LOG_IN}")
    if isinstance(error, RevisionNotFoundError):
        hint = f"`git ls-remote {endpoint}/{hub} HEAD` prints the newest one"
        return InputMissing(f"{hub} has no commit {source.revision}", field="model.revision", hint=hint)
    if isinstance(error, EntryNotFoundError):
        return InputMissing(f"no {CONFIG} in {hub}", hint="name a repository that holds a whole model")
    if status in (401, 403):
        return _refusal(status, sent_token="authorization" in error.response.request.headers, hub=hub)
    if status == 404:
        return InputMissing(f"no repository {hub} at {endpoint}", hint=f"check the id; if it is private, {_LOG_IN}")
    what = "limits its requests (429)" if status == 429 else f"answers {status}"
    return InputMissing(f"cannot fetch {hub}: {endpoint} {what}", hint=f"try again later; {_INSTEAD}")


def _refusal(status: int, *, sent_token: bool, hub: str) -> Denied:
    """The hub answers 401 for what is private as for what does not exist, so that nobody can tell them apart."""
    if not sent_token:
        reason = f"{hub} is private or does not exist, and no token was sent ({status})"
        return Denied(reason, hint=f"check the id, then {_LOG_IN}")
    reason = f"the hub refuses the token for {hub} ({status})"
    return Denied(reason, hint="make a token that may read it, then set HF_TOKEN or run `hf auth login` again")


def _cache_error(error: OSError, source: HubModel) -> SftjobError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left for {source.hub} in {constants.HF_HUB_CACHE}", hint="free some or set HF_HOME")
    reason = f"the hub's cache {constants.HF_HUB_CACHE} cannot be written"
    return ConfigurationError(reason, hint="set HF_HOME to a folder that can")
