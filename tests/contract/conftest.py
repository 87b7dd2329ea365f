import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def modules() -> Mapping[str, ast.Module]:
    """Every module of the package, parsed: `sftjob.render.pod` → its tree; a package is its `__init__`."""
    files = sorted((ROOT / "sftjob").rglob("*.py"))
    assert len(files) > 30
    return {_name(file): ast.parse(file.read_text(encoding="utf-8"), str(file)) for file in files}


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
