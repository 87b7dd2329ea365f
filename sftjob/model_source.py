"""Brings a base model to this machine: from the Hugging Face hub, a folder, an object store, or a pinned input."""

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sftjob.errors import DiskFull, InputMissing, NotFound
from sftjob.inputs import Progress, base_name, hash_input, in_field, require_folder, silent, staged, verify_input
from sftjob.model_cache import cached_model, hub_folder, stored_key
from sftjob.model_folder import (
    CONFIG,
    INDEX,
    SMALL_FILES,
    check_model_folder,
    check_no_custom_code,
    parse_config,
    weight_files,
)
from sftjob.spec import HubModel, LocalModel, ModelSource, PinnedModel, StoredModel
from sftjob.storage import open_store
from sftjob.storage.base import ObjectInfo, ObjectStore
from sftjob.storage.local import local_errors

__all__ = ["check_model_folder", "fetch_config", "fetch_model", "fetch_tokenizer"]

_CHECK_URI: Final = "check the URI and `storage.endpoint_url`"
_SUBMIT_AGAIN: Final = "submit the job again to stage it"
_FIELDS: Final = {HubModel: "model.hub", LocalModel: "model.path", StoredModel: "model.uri", PinnedModel: "model"}


def fetch_model(
    source: ModelSource,
    into: Path,
    *,
    store_root: ObjectStore | None,
    inputs: Mapping[str, Path],
    progress: Progress = silent,
    endpoint_url: str | None = None,
    region: str | None = None,
    cache: Path | None = None,
) -> Path:
    """Makes a folder that transformers can load the model from: config, tokenizer, template and safetensors, no code.

    Hub models are kept in the hub's own cache and `into` links to them; a stored model is downloaded into `into`, which
    is replaced only when all of it is there. A folder of this machine, or of `cache`, is used where it is.

    Args:
        into: the folder to make; its parent need not exist.
        store_root: the store at `<storage.uri>`, where pinned models lie; None where there is none.
        inputs: {sha256: folder} of pinned models that this machine has.
        progress: is given lines for people.
        endpoint_url, region: of the store that a `uri` names.
        cache: a folder that pods share, see `sftjob.model_cache`; one that cannot be used is told and done without.

    Returns:
        `into`, or the local folder itself, or that of the cache. What is not `into` may not be written.

    Raises:
        InputMissing: not there, incomplete, out of reach, or no longer what was pinned; the message says the repair.
        Denied: the hub or the store refuses.
        ConfigurationError: the model wants to run code of its own, or the hub's cache cannot be written.
        DiskFull: no space left.
        StorageError: the store does not answer.
    """
    name = base_name(source)
    with in_field(_FIELDS[type(source)]):
        if isinstance(source, LocalModel):
            folder = Path(source.path).expanduser()
            require_folder(folder)
            check_model_folder(folder, name=name)
            return folder.absolute()
        if isinstance(source, PinnedModel) and source.sha256 in inputs:
            folder = inputs[source.sha256]
            require_folder(folder)
            verify_input(folder, source.sha256, name=name, progress=progress)
            check_model_folder(folder, name=name)
            return folder
        if isinstance(source, HubModel):
            with _replaced(into) as folder:
                _link(source, folder, progress, cache)
            return into
        if isinstance(source, StoredModel):
            remote = _Remote(open_store(source.uri, endpoint_url=endpoint_url, region=region), name, _CHECK_URI)
        else:
            remote = _Remote(staged(store_root, source.sha256, name=name), name, _SUBMIT_AGAIN, sha256=source.sha256)
        if cache is not None and (found := remote.from_cache(cache, endpoint_url or "", progress)):
            return found
        with _replaced(into) as folder:
            remote.download(folder, progress)
    return into


def fetch_config(
    source: ModelSource,
    *,
    store_root: ObjectStore | None,
    inputs: Mapping[str, Path],
    endpoint_url: str | None = None,
    region: str | None = None,
) -> dict[str, object]:
    """The model's config.json alone, for resolving before weights are moved. Arguments and errors as `fetch_model`."""
    name = base_name(source)
    with in_field(_FIELDS[type(source)]):
        if isinstance(source, HubModel):
            from sftjob import hub  # noqa: PLC0415 - as above

            data = hub.read_config(source)
        elif isinstance(source, StoredModel):
            data = _stored_config(open_store(source.uri, endpoint_url=endpoint_url, region=region), hint=_CHECK_URI)
        elif isinstance(source, PinnedModel) and source.sha256 not in inputs:
            data = _stored_config(staged(store_root, source.sha256, name=name), hint=_SUBMIT_AGAIN)
        else:
            folder = inputs[source.sha256] if isinstance(source, PinnedModel) else Path(source.path).expanduser()
            data = _local_config(folder, name)
        config = parse_config(data, name=name)
        check_no_custom_code(config, name=f"{name}/{CONFIG}")
    return config


def fetch_tokenizer(
    source: ModelSource,
    into: Path,
    *,
    progress: Progress = silent,
    endpoint_url: str | None = None,
    region: str | None = None,
) -> Path:
    """A folder with the model's tokenizer and template, for who wants to see tokens and needs no weights.

    Arguments and errors as `fetch_model`; a pinned model is not looked for.
    """
    name = base_name(source)
    with in_field(_FIELDS[type(source)]):
        if isinstance(source, LocalModel):
            folder = Path(source.path).expanduser()
            require_folder(folder)
            return folder.absolute()
        with _replaced(into) as folder:
            if isinstance(source, HubModel):
                from sftjob import hub  # noqa: PLC0415 - as above

                hub.link_small_files(source, folder, progress)
            elif isinstance(source, StoredModel):
                store = open_store(source.uri, endpoint_url=endpoint_url, region=region)
                listed = _listed(store, _CHECK_URI)
                for file in (file for file in SMALL_FILES if file in listed):
                    store.get_file(file, folder / file, size=listed[file].size, sha256=None)
            else:
                raise InputMissing(f"{name} is pinned, and this command needs its folder", hint="name it by `path`")
    return into


def _local_config(folder: Path, name: str) -> bytes:
    require_folder(folder)
    if not (folder / CONFIG).is_file():
        raise InputMissing(f"no {CONFIG} in {name}", hint="name a whole model folder")
    return (folder / CONFIG).read_bytes()


def _stored_config(store: ObjectStore, *, hint: str) -> bytes:
    try:
        return store.get_bytes(CONFIG)
    except NotFound as error:
        raise InputMissing(f"no {CONFIG} under {store.uri}", hint=hint) from error


def _link(source: HubModel, folder: Path, progress: Progress, cache: Path | None) -> None:
    from sftjob import hub  # noqa: PLC0415 - huggingface_hub is imported only by those who need it

    if cache is not None:
        try:
            return hub.link_model(source, folder, progress, cache=hub_folder(cache))
        except (hub.CacheRefused, DiskFull) as error:
            progress(f"the cache {cache} cannot be used ({error.problems[0].reason}): fetching without it")
            for link in folder.iterdir():
                link.unlink()
    return hub.link_model(source, folder, progress)


@dataclass(frozen=True)
class _Remote:
    """A model in an object store."""

    store: ObjectStore
    """Seen from the model's own prefix."""
    name: str
    hint: str
    """The next step, where it is not there or not whole."""
    sha256: str | None = None
    """Of a pinned one."""

    def download(self, folder: Path, progress: Progress) -> None:
        """Takes the files that make the model, and checks that they do."""
        sizes = {key: info.size for key, info in _listed(self.store, self.hint).items()}

        def take(names: Collection[str]) -> None:
            for file in names:
                progress(f"fetching {self.store.uri}/{file} ({sizes[file] / 2**20:.1f} MiB)")
                self.store.get_file(file, folder / file, size=sizes[file], sha256=None)

        take([file for file in SMALL_FILES if file in sizes])
        index = folder / INDEX
        weights = weight_files(sizes, index.read_bytes() if index.is_file() else b"{}")
        take([file for file in weights if file in sizes])
        if self.sha256 is None:
            check_model_folder(folder, name=self.name, listing=sizes)
        elif hash_input(folder, progress=progress) != self.sha256:
            raise InputMissing(
                f"what lies under {self.store.uri} is not {self.name} as it was pinned: it is half-staged or damaged",
                hint="stage it again: sftjob stage SPEC --verify",
            )
        else:
            check_model_folder(folder, name=self.name, listing=sizes)

    def from_cache(self, cache: Path, endpoint_url: str, progress: Progress) -> Path | None:
        """The model's folder there; None where the cache cannot be used."""
        listed = _listed(self.store, self.hint)
        files = [(key, info.size, info.version) for key, info in listed.items() if _is_taken(key)]
        key = self.sha256 or stored_key(f"{endpoint_url} {self.store.uri}", files)
        size = sum(size for _, size, _ in files)
        return cached_model(
            cache, key, lambda folder: self.download(folder, progress), name=self.name, size=size, progress=progress
        )


def _is_taken(key: str) -> bool:
    return key in SMALL_FILES or ("/" not in key and key.endswith(".safetensors"))


def _listed(store: ObjectStore, hint: str) -> dict[str, ObjectInfo]:
    """All objects below the store's prefix by key."""
    try:
        found = {info.key: info for info in store.list()}
    except NotFound:
        found = {}
    if not found:
        raise InputMissing(f"no files under {store.uri}", hint=hint)
    return found


@contextmanager
def _replaced(into: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `into` when the block succeeds and vanishes when it fails."""
    partial = into.with_name(f"{into.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with local_errors(partial):
        partial.mkdir(parents=True)
    try:
        yield partial
        shutil.rmtree(into, ignore_errors=True)
        partial.replace(into)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
