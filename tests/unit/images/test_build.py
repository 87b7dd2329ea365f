"""scripts/images.py: which commands it gives to Docker, and what it says."""

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.images.dockerfile import write_program


def test_building_names_version_commit_and_time(images: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = record_docker(images, monkeypatch)
    assert images.main(["build", "gate", "--build-arg", "BASE=python:3.11-slim-trixie", "--network", "default"]) == 0
    (command, environment_of_build) = commands[0]
    text = " ".join(command)
    assert text.startswith("docker build --network default --file images/Dockerfile --target gate ")
    assert f"--build-arg VERSION={images.version()} --build-arg REVISION=" in text
    assert "--build-arg CREATED=" in text
    assert f"--build-arg BASE=python:3.11-slim-trixie --tag {images.tag('gate')} --tag sftjob:gate ." in text
    assert environment_of_build["DOCKER_BUILDKIT"] == "1"


def test_a_bill_of_materials_is_made_of_each_target(
    images: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commands = record_docker(images, monkeypatch)
    assert images.main(["sbom", "--folder", str(tmp_path)]) == 0
    assert [command[command.index("--build-arg") + 1] for command, _ in commands] == ["SBOM_OF=cpu", "SBOM_OF=gate"]
    assert all(command[command.index("--output") + 1] == str(tmp_path) for command, _ in commands)


def record_docker(images: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """Command lines of `docker build`, none of which is run."""
    commands: list[tuple[list[str], dict[str, str]]] = []

    def run(command: list[str], **options: Any) -> None:
        commands.append((command, options["env"]))

    monkeypatch.setattr(images.subprocess, "run", run)
    monkeypatch.setattr(images, "output", lambda *command: "")
    return commands


def test_sizes_are_told_by_layer(images: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    history = [
        "0\tLABEL org.opencontainers.image.title=sftjob",
        "3510000\tRUN /bin/sh -c uv pip install --no-cache --no-deps /wheel/*.whl # buildkit",
        "701000000\tRUN uv pip install --constraint /pins/constraints.txt --requirement /pins/train.txt",
        "17000000\tRUN uv pip install --no-deps /wheel/*.whl",
        "766000000\tRUN uv venv /opt/venv && /images/install-torch.sh cpu /pins/torch.txt",
        "1300000\tRUN apt-get update && apt-get install --yes libgomp1 && useradd --uid 10001",
        "100000000\tRUN apt-get install netbase",
        "25000000\tADD file",
    ]
    monkeypatch.setattr(images, "output", lambda *command: "\n".join(history))
    assert images.weighed("sftjob:1-cpu", images.layers("sftjob:1-cpu")) == (
        "sftjob:1-cpu 1614 MB: base 125, system 1.3, torch 766, DeepSpeed 17, packages 701, sftjob 3.5"
    )


def test_without_docker_it_says_so_in_one_line(
    images: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert images.main(["build", "gate"]) == 1
    assert capsys.readouterr().err.startswith("error: docker is not on PATH; install Docker")


def test_a_failed_build_is_told_in_one_line(
    images: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_program(tmp_path / "docker", "exit 3")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert images.main(["build", "gate"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: `docker build --network host")
    assert line.endswith("ended with 3; the lines above say why")
