from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from sftjob.spec import JobSpec, canonical_json
from sftjob.spec.fields import models_of

MINIMAL = """\
name: job
model: {path: m}
data: {train: [{path: t.jsonl}]}
method: {type: lora}
"""

NUMBERS = (1, 2, 3, 0.25, 0.5, 100, 200, 1000, 2000, True, False)
WORDS = (
    "bf16",
    "fp32",
    "linear",
    "cosine",
    "model",
    "chatml",
    "assistant",
    "all",
    "messages",
    "auto",
    "ddp",
    "all-linear",
    "truncate",
    "split",
    "drop",
    "zero1",
    "zero2",
    "adamw_8bit",
    "paged_adamw_8bit",
    "first_exhausted",
    "all_exhausted",
    "cli",
    "never",
)
TEXTS = ("500m", "16Gi", "a", "b", "a/b", "c/d", "a" * 40, "b" * 40, "https://store", "http://store:9000")
ADDRESSES = ("s3://bucket/x", "s3://bucket/y")
NESTED = (
    {"team": "a"},
    {"team": "b"},
    {"jinja": "q"},
    {"path": "q"},
    {"prompt": "q"},
    {"prompt": "r"},
    ["q"],
    ["r"],
    ["tensorboard"],
    ["wandb"],
    [{"path": "x"}],
    [{"path": "y"}],
)
# Something among these is valid for any knob; what is not is left out.
CANDIDATES: tuple[Any, ...] = (*NUMBERS, *WORDS, *TEXTS, *ADDRESSES, *NESTED)


@pytest.fixture
def minimal() -> str:
    """The smallest valid spec: four lines of block style, so that what is appended begins in line 5."""
    return MINIMAL


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes], Path]:
    """Writes a file that a person in its folder calls `spec.yaml`."""
    monkeypatch.chdir(tmp_path)

    def write_spec(content: str | bytes) -> Path:
        path = Path("spec.yaml")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_spec


@pytest.fixture(scope="session")
def base() -> dict[str, Any]:
    """A valid spec in which every knob can be turned alone."""
    return {
        "name": "job",
        "model": {"hub": "owner/name", "revision": "0" * 40},
        "data": {"train": [{"path": "t.jsonl"}]},
        "method": {"type": "lora", "r": 4},
        "training": {"lr_scheduler_type": "cosine_with_min_lr"},
        "launch": {"gpus_per_node": 0, "strategy": "zero3"},
    }


@pytest.fixture(scope="session")
def variants(base: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """For each knob of JobSpec by its dotted path: valid specs that differ from each other in this knob alone."""
    return {path: list(_valid(base, path)) for path in _knobs(JobSpec, base, "")}


def _knobs(model: type[BaseModel], written: dict[str, Any], above: str) -> Iterator[str]:
    """Fields below which there is no further model, in the member of each union that the base has chosen."""
    for name, field in model.model_fields.items():
        path = f"{above}{name}"
        models = tuple(models_of(field.annotation))
        value = written.get(name, {})
        chosen = next((each for each in models if set(value) <= set(each.model_fields)), None)
        if chosen is None:
            yield path
        else:
            yield from _knobs(chosen, value, f"{path}.")
    if "train" in model.model_fields:
        yield from (f"{above}train.0.{name}" for name in ("path", "format", "columns", "weight"))


def _valid(base: dict[str, Any], path: str) -> Iterator[dict[str, Any]]:
    for value in CANDIDATES:
        data = deepcopy(base)
        *parents, name = path.split(".")
        inner: Any = data
        for parent in parents:
            inner = inner[int(parent)] if parent.isdecimal() else inner.setdefault(parent, {})
        inner[name] = value
        try:
            JobSpec.model_validate_json(canonical_json(data))
        except ValidationError:
            continue
        yield data
