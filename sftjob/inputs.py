"""Local models and data: their content's hash, the spec that carries it, and how a pod gets them back.

A pinned input lies at `<storage.uri>/inputs/<sha256>/<file name>`: one object for data, a model's files for a model.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

import rfc8785
from pydantic import ValidationError

from sftjob.contract import keys
from sftjob.errors import ConfigurationError, Denied, InputMissing, NotFound, SftjobError
from sftjob.model_folder import check_model_folder, model_files
from sftjob.spec import (
    FileData,
    HubModel,
    JobSpec,
    LocalData,
    LocalModel,
    ModelSource,
    PinnedData,
    PinnedModel,
    StoredData,
    StoredModel,
    TemplateFile,
    TemplateText,
)
from sftjob.storage import open_store
from sftjob.storage.base import ObjectStore

Progress = Callable[[str], None]
Entry = tuple[str, int, str]
S = TypeVar("S")

_CHUNK_BYTES: Final = 2**23
_LINE_EVERY_BYTES: Final = 2**30


def silent(_line: str) -> None:
    """The progress of someone who does not look."""


class ByteProgress:
    """Turns byte counts into a line for people, one a GiB."""

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress = progress
        self._what = what
        self._next = _LINE_EVERY_BYTES

    def reach(self, done: int, total: int) -> None:
        """Tells that `done` of `total` bytes are through."""
        if done < self._next:
            return
        self._next = (done // _LINE_EVERY_BYTES + 1) * _LINE_EVERY_BYTES
        self._progress(f"{self._what}: {done / 2**30:.1f} of {total / 2**30:.1f} GiB")


def hash_input(path: Path, *, progress: Progress = silent) -> str:
    """SHA-256 in hex that stands for a local input; nothing is cached.

    A file's is that of its bytes. A model folder's is that of the RFC 8785 JSON of `[[name, size, sha256], …]`, sorted
    by name, over the files that make the model (`model_files`): a README or a pickle beside them changes nothing.

    Raises:
        InputMissing: there is no such file or folder.
        Denied: it may not be read.
    """
    if not path.exists():
        raise InputMissing(f"{path} does not exist", hint="check the path; a relative one starts at the spec's folder")
    try:
        if path.is_file():
            return _hash_file(path, progress)
        return combined_hash(model_entries(path, progress=progress))
    except PermissionError as error:
        raise _unreadable(error) from error


def model_entries(folder: Path, *, progress: Progress = silent) -> tuple[Entry, ...]:
    """Name, size in bytes and SHA-256 in hex of each file that makes the model in a folder, sorted by name."""
    files = [folder / name for name in model_files(folder)]
    return tuple((file.name, file.stat().st_size, _hash_file(file, progress)) for file in files)


def combined_hash(entries: Iterable[Entry]) -> str:
    """The hash of a model folder, out of those of its files."""
    return hashlib.sha256(rfc8785.dumps(tuple(sorted(entries)))).hexdigest()


def pin_local(spec: JobSpec, folder: Path, *, progress: Progress = silent) -> tuple[JobSpec, dict[str, Path]]:
    """Replaces local paths by their content's hash, so that the same spec is the same run wherever it goes.

    Args:
        folder: where relative paths start.

    Returns:
        The spec with PinnedModel, PinnedData and the text of a template file, in which only what was written is set,
        and {sha256: absolute path}.

    Raises:
        InputMissing: files or weights are absent; every one of them is named with its field (`data.train.0.path`).
        ConfigurationError: the model wants to run code of its own.
        Denied: something may not be read.
    """
    local: dict[str, Path] = {}
    errors: list[SftjobError] = []

    def pinned(source: S, field: str) -> S | PinnedModel | PinnedData:
        if not isinstance(source, LocalModel | LocalData):
            return source
        path = (folder / Path(source.path).expanduser()).absolute()
        try:
            with in_field(f"{field}.path"):
                result = _pin(source, path, progress)
        except SftjobError as error:
            errors.append(error)
            return source
        local[result.sha256] = path
        return result

    model = pinned(spec.model, "model")
    data: dict[str, object] = {
        split: tuple(pinned(source, f"data.{split}.{row}") for row, source in enumerate(getattr(spec.data, split)))
        for split in ("train", "eval")
        if split in spec.data.model_fields_set
    }
    if isinstance(spec.data.template, TemplateFile):
        try:
            data["template"] = read_template(folder / Path(spec.data.template.path).expanduser())
        except SftjobError as error:
            errors.append(error)
    _raise_all(errors)
    return spec.model_copy(update={"model": model, "data": spec.data.model_copy(update=data)}), local


def fetch_data(
    source: FileData,
    into: Path,
    *,
    store_root: ObjectStore | None,
    inputs: Mapping[str, Path],
    endpoint_url: str | None = None,
    region: str | None = None,
) -> tuple[Path, str]:
    """Brings a data file to this machine.

    Args:
        into: folder for what must be downloaded; a local file is not copied.
        store_root: the store at `<storage.uri>`, where pinned data lie; None where there is none.
        inputs: {sha256: path} of pinned data that this machine has.
        endpoint_url, region: of the store that a `uri` names.

    Returns:
        The local file, and what a person calls it.

    Raises:
        InputMissing: it is not there, or is no longer what was pinned.
        Denied, StorageError: the store refuses or does not answer.
    """
    if isinstance(source, LocalData):
        path = Path(source.path).expanduser()
        _require_file(path)
        return path.absolute(), source.path
    if isinstance(source, StoredData):
        prefix, _, key = source.uri.rpartition("/")
        if prefix == "s3:/" or not key:
            raise InputMissing(f"{source.uri} names no object", hint="write s3://bucket/key of a data file")
        store = open_store(prefix, endpoint_url=endpoint_url, region=region)
        return _download(store, key, into, name=source.uri, sha256=None), source.uri
    if source.sha256 in inputs:
        path = inputs[source.sha256]
        verify_input(path, source.sha256, name=source.name)
        return path, source.name
    store = staged(store_root, source.sha256, name=source.name)
    # The same content may lie there under several names, and a name's ending tells how to read it.
    found = sorted((info.key for info in store.list()), key=lambda key: key != source.name)
    if not found:
        raise InputMissing(f"{source.name} was not staged under {store.uri}", hint="submit the job again to stage it")
    return _download(store, found[0], into, name=source.name, sha256=source.sha256), source.name


def read_template(path: Path) -> TemplateText:
    """A chat template in a file.

    Raises:
        InputMissing: it is not there.
        ConfigurationError: it is not text, empty or far too long.
    """
    with in_field("data.template.path"):
        _require_file(path)
        try:
            text = path.read_text(encoding="utf-8")
            return TemplateText(jinja=text)
        except UnicodeDecodeError as error:
            raise ConfigurationError("the template is not UTF-8", hint="save it as UTF-8") from error
        except ValidationError as error:
            size = len(text)
            raise ConfigurationError(
                f"the template has {size:,} characters; a template has 1 to 65,536", hint="name a chat template"
            ) from error


def base_name(source: ModelSource) -> str:
    """What a person calls a model: its hub id, the folder's name, or the URI."""
    match source:
        case HubModel():
            return source.hub
        case StoredModel():
            return source.uri
        case PinnedModel():
            return source.name
        case LocalModel():
            return _called(Path(source.path).expanduser())


def verify_input(path: Path, sha256: str, *, name: str, progress: Progress = silent) -> None:
    """Raises InputMissing when a local input is no longer what was pinned."""
    if hash_input(path, progress=progress) != sha256:
        raise InputMissing(
            f"{name} ({path}) has changed since the run began: its hash is not {sha256[:12]}…",
            hint="put the old content back, or start again for a run of its own",
        )


def staged(store_root: ObjectStore | None, sha256: str, *, name: str) -> ObjectStore:
    """The store seen from a pinned input's own prefix.

    Raises:
        InputMissing: there is no store to look in.
    """
    if store_root is None:
        raise InputMissing(f"{name} is pinned ({sha256[:12]}…) and this machine has neither it nor a store", field="")
    return store_root.at(keys.input(sha256).rstrip("/"))


@contextmanager
def in_field(field: str) -> Iterator[None]:
    """Names the field of the spec in errors that name none, the refusals of the file system among them."""
    try:
        yield
    except PermissionError as error:
        raise _unreadable(error, field) from error
    except SftjobError as error:
        raise type(error)(
            problem if problem.field or problem.file else replace(problem, field=field) for problem in error.problems
        ) from error


def _unreadable(error: PermissionError, field: str = "") -> Denied:
    return Denied(f"{error.filename} may not be read", field=field, hint="change its permissions")


def _hash_file(path: Path, progress: Progress) -> str:
    total = path.stat().st_size
    gauge = ByteProgress(progress, f"hashing {path.name}")
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            gauge.reach(done, total)
    return digest.hexdigest()


def _pin(source: LocalModel | LocalData, path: Path, progress: Progress) -> PinnedModel | PinnedData:
    name = _called(path)
    if isinstance(source, LocalModel):
        require_folder(path)
        check_model_folder(path, name=name)
        return PinnedModel(sha256=hash_input(path, progress=progress), name=name)
    _require_file(path)
    written = {key: getattr(source, key) for key in source.model_fields_set - {"path"}}
    return PinnedData(sha256=hash_input(path, progress=progress), name=name, **written)


def _called(path: Path) -> str:
    return path.name if path.name not in ("", "..") else path.resolve().name


def require_folder(path: Path) -> None:
    """Raises InputMissing for a path that is not a folder."""
    if not path.exists():
        raise InputMissing(f"{path} does not exist", hint="check the path; a relative one starts at the spec's folder")
    if not path.is_dir():
        raise InputMissing(f"{path} is a file", hint="name the folder that holds config.json")


def _require_file(path: Path) -> None:
    if not path.exists():
        raise InputMissing(f"{path} does not exist", hint="check the path; a relative one starts at the spec's folder")
    if not path.is_file():
        if path.is_dir():
            raise InputMissing(f"{path} is a folder", hint="name a file in it")
        raise InputMissing(f"{path} is not a regular file", hint="write its content into a file")


def _raise_all(errors: list[SftjobError]) -> None:
    """One error with all problems of the first error's class, whose exit code the process ends with."""
    if errors:
        raise type(errors[0])(problem for error in errors for problem in error.problems) from errors[0]


def _download(store: ObjectStore, key: str, into: Path, *, name: str, sha256: str | None) -> Path:
    # A folder of its own: two sources may end in the same file name.
    folder = into / hashlib.sha256(f"{store.uri}/{key}".encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / Path(key).name
    try:
        store.get_file(key, path, size=store.head(key).size, sha256=sha256)
    except NotFound as error:
        raise InputMissing(f"{name} does not exist", hint="check the URI and `storage.endpoint_url`") from error
    return path
