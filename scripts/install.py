#!/usr/bin/env python3
"""Makes `.venv` with everything in it, from any of the three places where torch may be found.

1. a wheel on disk, in pip's find-links folders (PIP_FIND_LINKS, UV_FIND_LINKS or pip's configuration);
2. PyTorch's own index, where uv picks the CPU or the CUDA build that suits this machine;
3. the plain package index, which has torch's default build.

uv does the installing: pip's resolver takes minutes for this set of packages and uv takes seconds. Only the standard
library is used here, since nothing is installed yet.
"""

import argparse
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
UV = "uv==0.13.9"
MINIMUM = (3, 11)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--extras", default="dev", help="extras of the project to install (default: %(default)s)")
    extras: str = arguments.parse_args().extras
    if sys.version_info < MINIMUM:
        return fail(f"Python {sys.version.split()[0]} is too old; run `make install PYTHON=python3.11` or newer")
    try:
        uv = make_venv()
    except (subprocess.CalledProcessError, OSError) as error:
        return fail(f"no virtual environment: {error}; on Debian and Ubuntu: apt-get install python3-venv")
    target = ["--python", str(VENV / "bin" / "python"), "--constraint", str(ROOT / "constraints.txt")]
    target += ["--editable", f"{ROOT}[{extras}]"]
    for place, options in places():
        print(f"installing, torch from {place}", flush=True)
        if subprocess.run([uv, "pip", "install", *options, *target], check=False).returncode == 0:
            (VENV / ".installed").touch()
            return 0
    return fail("no place had all packages; the messages above say what was missing")


def make_venv() -> str:
    """Creates `.venv` when it is not there and returns the path of uv inside it."""
    uv = VENV / "bin" / "uv"
    if not uv.exists():
        venv.create(VENV, with_pip=True)
        subprocess.run([VENV / "bin" / "python", "-m", "pip", "install", "--quiet", UV], check=True)
    return str(uv)


def places() -> Iterator[tuple[str, list[str]]]:
    """Yields where torch may be found, best first, with uv's options for it."""
    if folders := [folder for folder in find_links() if any(Path(folder).glob("torch-*.whl"))]:
        yield "a wheel on disk", [option for folder in folders for option in ("--find-links", folder)]
    yield "PyTorch's index", ["--torch-backend=auto"]
    yield "the package index", []


def find_links() -> list[str]:
    """Folders that pip searches for wheels; URLs among them are left to pip."""
    configured = subprocess.run(
        [VENV / "bin" / "python", "-m", "pip", "config", "get", "global.find-links"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    words = f"{os.environ.get('PIP_FIND_LINKS', '')} {os.environ.get('UV_FIND_LINKS', '')} {configured}"
    return [word for word in dict.fromkeys(words.replace(",", " ").split()) if Path(word).is_dir()]


def fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
