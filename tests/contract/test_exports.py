"""The public surface of every package is written down here: a change of it is a decision, not an accident."""

import ast
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

Modules = Mapping[str, ast.Module]

PINNED = Path(__file__).with_name("exports.txt")
LIGHT = ("sftjob.spec", "sftjob.plan", "sftjob.render", "sftjob.storage", "sftjob.report")
"""Packages whose import is quick, so that their names are looked up for real."""


def exports(tree: ast.Module) -> list[str] | None:
    """`__all__`, which has to be a plain list of names; None without one."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def public(modules: Modules) -> dict[str, list[str]]:
    return {name: names for name, tree in modules.items() if (names := exports(tree)) is not None}


def bound(tree: ast.Module) -> Iterator[str]:
    """Names that a module has after its import."""
    for node in tree.body:
        match node:
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (alias.asname or alias.name for alias in names)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, as ruff's RUF022 sorts them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_are_pinned(modules: Modules, request: pytest.FixtureRequest) -> None:
    text = "".join(f"{name}.{each}\n" for name, names in public(modules).items() for each in names)
    if request.config.getoption("--update-golden"):
        PINNED.write_text(text, encoding="utf-8")

    assert text == PINNED.read_text(encoding="utf-8"), "if it is meant: pytest tests/contract --update-golden"


def test_packages_say_what_they_export(modules: Modules) -> None:
    packages = {name for name in modules if any(other.startswith(f"{name}.") for other in modules)}
    silent = packages - public(modules).keys() - {"sftjob"}  # which has its version and nothing else
    speaking = {name for name in silent if set(bound(modules[name]))}

    assert not speaking, "a package that imports or defines something needs `__all__`"
    assert len(public(modules)) >= len(LIGHT)


def test_are_sorted_and_there(modules: Modules) -> None:
    for name, names in public(modules).items():
        assert names == sorted(set(names), key=order), name
        assert set(names) <= set(bound(modules[name])), name


@pytest.mark.parametrize("name", LIGHT)
def test_resolve(name: str) -> None:
    package = importlib.import_module(name)

    assert all(hasattr(package, each) for each in package.__all__)
