"""Whatever stands in a file or on the command line: a spec, or a SpecError in few short lines."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftjob.errors import SpecError
from sftjob.spec import LoadedSpec, canonical_spec, load_spec, parse_spec_json, run_id

fuzz = settings(max_examples=60, deadline=None, database=None, derandomize=True)

MINIMAL = "name: job\nmodel: {path: m}\ndata: {train: [{path: t.jsonl}]}\nmethod: {type: lora}\n"
WORDS = [
    "name",
    "model",
    "path",
    "data",
    "train",
    "method",
    "type",
    "lora",
    "full",
    "training",
    "seed",
    "learning_rate",
    "salt",
    "kubernetes",
    "labels",
]
MARKS = [
    ": ",
    ":",
    "- ",
    "\n",
    "\n  ",
    "\n    ",
    "? ",
    "#",
    "%",
    "---\n",
    "...\n",
    "<<",
    "~",
    "&a ",
    "*a",
    "!t ",
    "!",
    "\t",
    "\r",
]
VALUES = [
    "yes",
    "1",
    "-1",
    "0x1",
    "1e5",
    ".",
    "\\",
    "\\u2028",
    "\\UFFFFFFFF",
    "\\x",
    "\x00",
    "\x85",
    "\ufeff",
    "é",
    "a" * 70,
]
OTHERS = ["%YAML 1.1\n", "hf_" + "a" * 30]
PIECES = st.sampled_from([*WORDS, *MARKS, *VALUES, *OTHERS, *"{}[],'\"|>"])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "spec.yaml"


def _check(path: Path, content: bytes, *overrides: str) -> None:
    path.write_bytes(content)
    loaded = _loaded(path, overrides)
    if isinstance(loaded, LoadedSpec):
        again = parse_spec_json(canonical_spec(loaded.spec), "spec.json")
        assert again == loaded.spec
        assert run_id(again) == run_id(loaded.spec)
        return
    lines = str(loaded).encode().decode().split("\n")  # a lone surrogate could not be printed
    assert len(lines) == len(loaded.problems) <= 51
    assert all(len(line) < 700 for line in lines)
    assert "hf_aaaa" not in str(loaded)


def _loaded(path: Path, overrides: Sequence[str]) -> LoadedSpec | SpecError:
    try:
        return load_spec(path, overrides=overrides)
    except SpecError as error:
        return error


@fuzz
@given(content=st.binary(max_size=300))
def test_bytes(path: Path, content: bytes) -> None:
    _check(path, content)


@fuzz
@given(text=st.text(max_size=300))
def test_text(path: Path, text: str) -> None:
    _check(path, text.encode(errors="surrogatepass"))


@fuzz
@given(pieces=st.lists(PIECES, max_size=40))
def test_yaml_like_text(path: Path, pieces: list[str]) -> None:
    _check(path, "".join(pieces).encode())


@fuzz
@given(at=st.integers(0, 90), cut=st.integers(0, 6), pieces=st.lists(PIECES, max_size=4))
def test_specs_with_something_else_in_them(path: Path, at: int, cut: int, pieces: list[str]) -> None:
    _check(path, (MINIMAL[:at] + "".join(pieces) + MINIMAL[at + cut :]).encode())


@fuzz
@given(
    names=st.lists(
        st.sampled_from(["data", "train", "0", "1", "path", "model", "x", "", "é", "\ud800", "salt"]), max_size=4
    ),
    value=st.lists(PIECES, max_size=6),
)
def test_overrides(path: Path, names: list[str], value: list[str]) -> None:
    _check(path, MINIMAL.encode(), f"{'.'.join(names)}={''.join(value)}", "".join(value))


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
BLOCKS = st.sampled_from(
    ["name", "model", "data", "method", "training", "launch", "kubernetes", "evaluation", "salt", "x"]
)


@fuzz
@given(data=st.dictionaries(BLOCKS, TREES, max_size=5))
def test_json(data: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        parse_spec_json(json.dumps(data).encode(), "spec.json")


@fuzz
@given(data=st.binary(max_size=100))
def test_json_bytes(data: bytes) -> None:
    with pytest.raises(SpecError):
        parse_spec_json(data, "spec.json")


def test_the_fuzzed_spec_is_valid(path: Path) -> None:
    """Otherwise nothing above would reach the model."""
    path.write_text(MINIMAL)
    assert isinstance(_loaded(path, ["salt=a"]), LoadedSpec)
