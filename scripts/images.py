#!/usr/bin/env python3
"""Builds the images of `images/Dockerfile`, prints what each layer weighs, and writes their bills of materials.

    images.py build [TARGET ...] [--build-arg NAME=VALUE] [--network MODE]
    images.py sbom [TARGET ...]

An image is tagged `sftjob:<version>-<target>`, which is what manifests without a profile name, and `sftjob:<target>`.
Only the standard library and docker are used.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
TARGETS: Final = ("cpu", "cuda", "eval", "gate")
EVERYWHERE: Final = ("cpu", "gate")
"""Targets that need no CUDA packages."""
LAYERS: Final[Mapping[str, str]] = {
    "useradd": "system",
    "gcc libc6-dev": "compiler",
    "install-torch.sh": "torch",
    "--no-cache --no-deps": "sftjob",
    "--no-deps /wheel": "DeepSpeed",
    "--requirement /pins/": "packages",
}
"""What a layer's command contains → what the layer is; a layer with none of these is the base's."""
MEGABYTE: Final = 1_000_000


@dataclass(frozen=True)
class Layer:
    """One layer of an image."""

    name: str
    size_bytes: int


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        for target in arguments.targets:
            if arguments.command == "build":
                build(target, build_args=arguments.build_arg, network=arguments.network)
                print(weighed(tag(target), layers(tag(target))), flush=True)
            else:
                write_sbom(target, arguments.folder, network=arguments.network)
    except FileNotFoundError as error:
        return fail(f"{error.filename} is not on PATH; install Docker: https://docs.docker.com/engine/install/")
    except subprocess.CalledProcessError as error:
        return fail(f"`{' '.join(map(str, error.cmd))}` ended with {error.returncode}; the lines above say why")
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("command", choices=("build", "sbom"))
    made.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: cpu gate)")
    made.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="an ARG of the Dockerfile")
    made.add_argument("--network", default="host", help="of the build; `default` for builders that refuse the host's")
    made.add_argument("--folder", type=Path, default=ROOT / "dist" / "sbom", help="for bills of materials")
    made.set_defaults(targets=EVERYWHERE)
    return made


def build(target: str, *, build_args: Sequence[str] = (), network: str = "host") -> None:
    """Builds and tags one target; CalledProcessError where docker fails."""
    labels = [f"VERSION={version()}", f"REVISION={revision()}", f"CREATED={committed()}"]
    docker_build(
        target,
        network,
        *options("--build-arg", [*labels, *build_args]),
        *options("--tag", [tag(target), alias(target)]),
    )


def write_sbom(target: str, folder: Path, *, network: str = "host") -> None:
    """Writes `sftjob-<target>.cdx.json` (CycloneDX) into `folder`: every Python package of the image."""
    docker_build("sbom", network, *options("--build-arg", [f"SBOM_OF={target}"]), "--output", str(folder))
    print(folder / f"sftjob-{target}.cdx.json", flush=True)


def docker_build(target: str, network: str, *rest: str) -> None:
    command = ["docker", "build", "--network", network, "--file", "images/Dockerfile", "--target", target, *rest, "."]
    # Engines before 23 build without BuildKit unless told so, and without it every target is built.
    subprocess.run(command, cwd=ROOT, env={**os.environ, "DOCKER_BUILDKIT": "1"}, check=True)


def options(name: str, values: Sequence[str]) -> Iterator[str]:
    for value in values:
        yield from (name, value)


def layers(image: str) -> list[Layer]:
    """An image's layers from the bottom up; those of the base, and of each part of ours, as one."""
    history = output("docker", "history", "--human=false", "--no-trunc", "--format", "{{.Size}}\t{{.CreatedBy}}", image)
    sizes: dict[str, int] = {}
    for line in reversed(history.splitlines()):
        size, _, command = line.partition("\t")
        name = next((name for mark, name in LAYERS.items() if mark in command), "base")
        sizes[name] = sizes.get(name, 0) + int(size)
    return [Layer(name, size) for name, size in sizes.items()]


def weighed(image: str, parts: Sequence[Layer]) -> str:
    """One line: `sftjob:0.1.0-gate 582 MB: base 383, system 1.3, packages 194, sftjob 3.5`."""
    total = sum(part.size_bytes for part in parts)
    return f"{image} {megabytes(total)} MB: {', '.join(f'{part.name} {megabytes(part.size_bytes)}' for part in parts)}"


def megabytes(size_bytes: int) -> str:
    size = size_bytes / MEGABYTE
    return f"{size:.1f}" if size < 10 else f"{size:.0f}"


def tag(target: str) -> str:
    """The name that a manifest without a profile has for it."""
    return f"sftjob:{version()}-{target}"


def alias(target: str) -> str:
    return f"sftjob:{target}"


def version() -> str:
    found = re.search(r'__version__ = "(.+)"', (ROOT / "sftjob" / "__init__.py").read_text(encoding="utf-8"))
    assert found
    return found[1]


def revision() -> str:
    """The commit, with `-dirty` where the checkout differs from it."""
    try:
        dirty = "-dirty" if output("git", "status", "--porcelain").strip() else ""
        return output("git", "rev-parse", "HEAD").strip() + dirty
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def committed() -> str:
    """When the commit was made: the same commit gives the same labels."""
    try:
        return output("git", "log", "-1", "--format=%cI").strip()
    except (OSError, subprocess.CalledProcessError):
        return "1970-01-01T00:00:00Z"


def output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
