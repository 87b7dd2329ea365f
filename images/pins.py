"""Writes what each layer of the images installs, a file a layer: a layer is made again only when its own lines change.

    python pins.py PYPROJECT CONSTRAINTS FOLDER

Runs before anything is installed, so with the standard library alone.
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

TORCH: Final = (
    "torch",
    "filelock",
    "fsspec",
    "jinja2",
    "markupsafe",
    "mpmath",
    "networkx",
    "numpy",
    "sympy",
    "typing-extensions",
)
"""torch and what it needs, so that no later layer replaces any of it."""
DEEPSPEED_BUILD: Final = ("ninja", "packaging", "psutil", "py-cpuinfo")
BUILD_TOOLS: Final = ("pip==26.3", "setuptools==84.2.1", "wheel==0.48.0")
"""Not in constraints.txt, where only what runs is pinned."""


def main(arguments: Sequence[str]) -> int:
    pyproject, constraints, folder = (Path(argument) for argument in arguments)
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    pins = [line for line in constraints.read_text(encoding="utf-8").splitlines() if "==" in line]
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in layers(project, pins).items():
        (folder / f"{name}.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return 0


def layers(project: Mapping[str, Any], pins: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Lines of requirements by layer: exact for torch and DeepSpeed, elsewhere the project's ranges.

    Args:
        project: the table of pyproject.toml.
        pins: `name==version`, one a package.
    """
    evaluation = requirements(project, "eval", "s3", "wandb")
    return {
        "constraints": pins,
        "torch": pinned(pins, TORCH),
        "deepspeed": pinned(pins, ["deepspeed"]),
        "deepspeed-build": [*pinned(pins, DEEPSPEED_BUILD), *BUILD_TOOLS],
        # A profile that names no image for the gate lets it run in this one.
        "train": requirements(project, "eval", "s3", "wandb", "k8s"),
        # An evaluation never runs under DeepSpeed.
        "eval": [*(line for line in evaluation if not line.startswith("deepspeed")), "vllm"],
        "gate": requirements(project, "k8s", "s3"),
    }


def pinned(pins: Sequence[str], names: Sequence[str]) -> list[str]:
    """The pins of these packages; a package without one is a KeyError."""
    by_name = {pin.partition("==")[0]: pin for pin in pins}
    return [by_name[name] for name in names]


def requirements(project: Mapping[str, Any], *extras: str) -> list[str]:
    """The project's own requirements and those of its extras, sorted."""
    optional = project["optional-dependencies"]
    lines = {line for extra in extras for line in _extra(project["name"], optional, extra)}
    return sorted(lines.union(project["dependencies"]))


def _extra(project: str, optional: Mapping[str, Sequence[str]], extra: str) -> Iterator[str]:
    """Follows extras that name others, as `sftjob[train]` does."""
    for line in optional[extra]:
        if inner := re.fullmatch(rf"{project}\[([\w,-]+)\]", line):
            for name in inner[1].split(","):
                yield from _extra(project, optional, name)
        else:
            yield line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
