"""What makes a folder a model: which of its files are taken, and whether they are whole. Reads headers, never weights.

Weights are safetensors only: other formats are pickles, which run code when they are opened. A model's own Python code
is never taken and never run.
"""

import json
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from sftjob.errors import ConfigurationError, InputMissing, Problem

CONFIG: Final = "config.json"
TOKENIZER: Final = "tokenizer.json"
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
SMALL_FILES: Final[tuple[str, ...]] = (
    CONFIG,
    INDEX,
    "generation_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""Everything but weights that is taken, where it exists; files in subfolders never are."""

_MAX_HEADER_BYTES: Final = 100_000_000
"""The limit of the safetensors library itself."""
_LFS_POINTER: Final = b"version https://git-lfs"
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt")


class _Index(NamedTuple):
    shards: Mapping[str, frozenset[str]]
    """Tensor names by file name; one entry without names for a model in a single file."""
    problem: Problem | None = None


def check_model_folder(folder: Path, *, name: str, listing: Collection[str] | None = None) -> None:
    """Refuses a folder that transformers could not load a causal language model from.

    Args:
        folder: holds config.json, tokenizer.json, and model.safetensors or an index with its shards.
        name: what a person calls the model; begins every message.
        listing: file names at the place that `folder` was fetched from, when only a part was taken.

    Raises:
        InputMissing: files are absent, cut off or unreadable; all of them are named at once.
        ConfigurationError: the model wants to run code of its own.
    """
    problems = [
        *_config_problems(folder, name, listing or ()),
        *_tokenizer_problems(folder, name),
        *_weight_problems(folder, name, listing),
    ]
    if problems:
        raise InputMissing(problems)
    for file in (CONFIG, "tokenizer_config.json"):
        if (folder / file).is_file():
            check_no_custom_code(_read_object(folder / file), name=f"{name}/{file}")


def check_no_custom_code(config: Mapping[str, object], *, name: str) -> None:
    """Raises ConfigurationError for a config that refers to Python files beside it (`auto_map`)."""
    if not config.get("auto_map"):
        return
    raise ConfigurationError(
        f"{name} asks for Python code of its own (auto_map), which is never run",
        hint="use a copy that save_pretrained() of transformers wrote without it, or another model",
    )


def parse_config(data: bytes, *, name: str) -> dict[str, object]:
    """The object in a config.json.

    Raises:
        InputMissing: not a JSON object; `name` is named.
    """
    try:
        return _object(data)
    except ValueError as error:
        raise InputMissing(f"{name}/{CONFIG} {error}", hint="fetch it again") from error


def model_files(folder: Path) -> tuple[str, ...]:
    """Names of the files of a local folder that make the model, sorted: what is fetched, loaded and hashed."""
    names = {path.name for path in folder.iterdir() if path.is_file()}
    weights = weight_files(names, (folder / INDEX).read_bytes() if INDEX in names else b"{}")
    return tuple(sorted(names & {*SMALL_FILES, *weights}))


def weight_files(names: Collection[str], index: bytes) -> tuple[str, ...]:
    """The weight files that transformers loads: model.safetensors where it exists, else the shards of the index.

    Args:
        names: files that exist.
        index: content of the index; read only where there is no model.safetensors.
    """
    return (WEIGHTS,) if WEIGHTS in names else tuple(sorted(_read_index(index, "").shards))


def tensor_names(path: Path) -> frozenset[str]:
    """Names of the tensors of a safetensors file, from its header (https://github.com/huggingface/safetensors#format).

    Raises:
        ValueError: not such a file, or its size is not what its header says; the text follows the file's name.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if (prefix + file.read(len(_LFS_POINTER) - 8)) == _LFS_POINTER:
            raise ValueError("is a Git LFS pointer, not the weights; run `git lfs pull` in the repository")
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if length > _MAX_HEADER_BYTES:
            raise ValueError("is not a safetensors file; fetch it again")
        file.seek(8)
        raw = file.read(length)
    if len(raw) < length:
        raise ValueError(f"is cut off inside its header ({size} bytes); fetch it again")
    header = {key: value for key, value in _header(raw).items() if key != "__metadata__"}
    expected = 8 + length + max((_end(entry) for entry in header.values()), default=0)
    if size != expected:
        what = "is cut off" if size < expected else "is longer than its header says"
        raise ValueError(f"{what}: {size} of {expected} bytes; fetch it again")
    return frozenset(header)


def _config_problems(folder: Path, name: str, listing: Collection[str]) -> Iterator[Problem]:
    if not (folder / CONFIG).is_file():
        adapter = "adapter_config.json" in listing or (folder / "adapter_config.json").is_file()
        hint = "this is an adapter: merge it into its base model first" if adapter else "name a whole model folder"
        yield Problem(reason=f"no {CONFIG} in {name}", hint=hint)
        return
    yield from _object_problems(folder / CONFIG, name)


def _tokenizer_problems(folder: Path, name: str) -> Iterator[Problem]:
    if not (folder / TOKENIZER).is_file():
        hint = "AutoTokenizer.from_pretrained(…).save_pretrained(…) writes it"
        yield Problem(reason=f"no {TOKENIZER} in {name}", hint=hint)
    elif (folder / "tokenizer_config.json").is_file():
        yield from _object_problems(folder / "tokenizer_config.json", name)


def _object_problems(path: Path, name: str) -> Iterator[Problem]:
    try:
        _read_object(path)
    except ValueError as error:
        yield Problem(reason=f"{name}/{path.name} {error}", hint="fetch it again")


def _weight_problems(folder: Path, name: str, listing: Collection[str] | None) -> Iterator[Problem]:
    if (folder / WEIGHTS).is_file():
        yield from _shard_problems(folder / WEIGHTS, name, frozenset())
        return
    if not (folder / INDEX).is_file():
        yield _no_weights(name, listing if listing is not None else [path.name for path in folder.iterdir()])
        return
    index = _read_index((folder / INDEX).read_bytes(), name)
    if index.problem:
        yield index.problem
    for shard, tensors in sorted(index.shards.items()):
        yield from _shard_problems(folder / shard, name, tensors)


def _no_weights(name: str, listing: Collection[str]) -> Problem:
    if any(file.endswith(_PICKLES) for file in listing):
        return Problem(
            reason=f"{name} holds its weights only as pickles (*.bin), which can run code when they are opened",
            hint="convert it where you trust it: save_pretrained() of transformers writes *.safetensors",
        )
    return Problem(
        reason=f"no *.safetensors in {name} ({WEIGHTS}, or {INDEX} with its shards)",
        hint="save_pretrained() of transformers writes them",
    )


def _shard_problems(path: Path, name: str, promised: frozenset[str]) -> Iterator[Problem]:
    if not path.is_file():
        yield Problem(reason=f"{name}/{path.name} is missing, which {INDEX} names", hint="fetch it again")
        return
    try:
        found = tensor_names(path)
    except ValueError as error:
        reason, _, hint = str(error).partition("; ")
        yield Problem(reason=f"{name}/{path.name} {reason}", hint=hint)
        return
    if lacking := sorted(promised - found):
        reason = f"{name}/{path.name} lacks {len(lacking)} tensors that {INDEX} names, {lacking[0]} among them"
        yield Problem(reason=reason, hint="index and shards are of different versions; fetch both again")


def _read_index(data: bytes, name: str) -> _Index:
    try:
        entries = _object(data).get("weight_map")
    except ValueError as error:
        return _Index({}, Problem(reason=f"{name}/{INDEX} {error}", hint="fetch it again"))
    if not isinstance(entries, dict) or not entries:
        return _Index({}, Problem(reason=f"{name}/{INDEX} has no weight_map", hint="fetch it again"))
    shards: dict[str, set[str]] = {}
    for tensor, shard in entries.items():
        # A name with a separator or `..` would reach outside the folder.
        if not isinstance(shard, str) or not shard.endswith(".safetensors") or set(shard) & set("/\\*?["):
            reason = f"{name}/{INDEX} names {shard!r}, which is not a *.safetensors file of the folder"
            return _Index({}, Problem(reason=reason, hint="fetch it again"))
        shards.setdefault(shard, set()).add(tensor)
    return _Index({shard: frozenset(tensors) for shard, tensors in shards.items()})


def _header(raw: bytes) -> dict[str, object]:
    try:
        return _object(raw)
    except ValueError as error:
        raise ValueError("is not a safetensors file; fetch it again") from error


def _end(entry: object) -> int:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(isinstance(offset, int) for offset in offsets):
        raise ValueError("is not a safetensors file; fetch it again")
    return int(offsets[1])


def _read_object(path: Path) -> dict[str, object]:
    return _object(path.read_bytes())


def _object(data: bytes) -> dict[str, object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("is not JSON") from error
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value
