"""images/Dockerfile as instructions and stages, and the scripts beside it as modules."""

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[3]
IMAGES = ROOT / "images"
TARGETS = ("cpu", "cuda", "eval", "gate")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, on one line."""

    name: str
    text: str

    @property
    def mounts(self) -> list[dict[str, str]]:
        """Options of each `--mount=` of a RUN."""
        found = re.findall(r"--mount=(\S+)", self.text)
        return [dict(option.partition("=")[::2] for option in mount.split(",")) for mount in found]


@dataclass(frozen=True)
class Stage:
    name: str
    base: str
    instructions: tuple[Instruction, ...]

    def all(self, name: str) -> list[Instruction]:
        return [each for each in self.instructions if each.name == name]


def parse(text: str) -> tuple[list[Instruction], list[Stage]]:
    """Instructions before the first FROM, and the stages."""
    lines = re.sub(r"\\\n\s*", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    parsed = [Instruction(*" ".join(line.split()).split(maxsplit=1)) for line in lines.splitlines() if line.strip()]
    starts = [place for place, each in enumerate(parsed) if each.name == "FROM"]
    stages = []
    for start, end in zip(starts, [*starts[1:], len(parsed)], strict=True):
        base, _, name = parsed[start].text.partition(" AS ")
        stages.append(Stage(name, base, tuple(parsed[start + 1 : end])))
    return parsed[: starts[0]], stages


TEXT = (IMAGES / "Dockerfile").read_text()
HEAD, STAGES = parse(TEXT)
STAGE = {stage.name: stage for stage in STAGES}
RUNS = [run for stage in STAGES for run in stage.all("RUN")]


def ancestry(name: str) -> list[Stage]:
    """A target and the stages it is made from, the lowest first."""
    stage = STAGE[name]
    return [*(ancestry(stage.base) if stage.base in STAGE else []), stage]


def environment(name: str) -> dict[str, str]:
    """What ENV sets in a target."""
    words = [word for stage in ancestry(name) for each in stage.all("ENV") for word in each.text.split()]
    return dict(word.partition("=")[::2] for word in words)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tested_{Path(name).stem}", ROOT / name)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def pins(name: str) -> list[str]:
    """Lines `name==version` of a file."""
    return [line for line in (ROOT / name).read_text().splitlines() if "==" in line]


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
