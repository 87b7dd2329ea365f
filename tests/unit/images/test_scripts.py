"""The scripts of images/, run with stand-ins for the programs that they call."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.images.dockerfile import IMAGES, write_program


def run_script(name: str, *arguments: str, path: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs a script of images/ with the programs in `path` before all others."""
    return subprocess.run(
        ["sh", str(IMAGES / name), *arguments],
        env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize("name", sorted(path.name for path in IMAGES.glob("*.sh")))
def test_scripts_can_be_started_and_stop_at_the_first_error(name: str) -> None:
    text = (IMAGES / name).read_text()
    assert text.startswith("#!/bin/sh\n")
    assert "\nset -eu\n" in text
    assert (IMAGES / name).stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(IMAGES / name)], check=True)


@pytest.mark.parametrize("found", ["-D__AVX512__", "-D__AVX256__", "-D__SCALAR__"])
def test_ops_are_compiled_for_other_processors_than_the_builders(found: str, tmp_path: Path) -> None:
    write_program(tmp_path / "uname", "echo x86_64")
    write_program(tmp_path / "c++", 'printf "%s\\n" "$@"')
    given = ["-O3", "-g", "-march=native", found, "-I/a b", "-c", "op.cpp"]
    done = run_script("portable-c++.sh", *given, path=tmp_path)
    assert done.stdout.splitlines() == ["-O3", "-march=x86-64-v3", "-D__AVX256__", "-I/a b", "-c", "op.cpp"]


def test_elsewhere_the_compiler_chooses_the_processor(tmp_path: Path) -> None:
    write_program(tmp_path / "uname", "echo aarch64")
    write_program(tmp_path / "c++", 'printf "%s\\n" "$@"')
    done = run_script("portable-c++.sh", "-march=native", "-D__SCALAR__", "op.cpp", path=tmp_path)
    assert done.stdout.splitlines() == ["-D__SCALAR__", "op.cpp"]


@dataclass(frozen=True)
class Torch:
    """A machine on which install-torch.sh finds torch in some places, built for something."""

    folder: Path

    def install(self, backend: str, *, places: str, built: str) -> "subprocess.CompletedProcess[str]":
        """`places`: words of uv's command lines that succeed, as a pattern of `case`."""
        (self.folder / "torch.txt").write_text("torch==1.2.3\nnumpy==4.5\n")
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        write_program(self.folder / "uv", f'echo "$@" >>{log}; case "$*" in {places}) exit 0 ;; esac; exit 2')
        cuda = f'"{built}"' if built else "None"
        (self.folder / "torch.py").write_text(f"class version: cuda = {cuda}\n__version__ = '1.2.3'\n")
        write_program(self.folder / "python", f'exec {sys.executable} "$@"')
        file = str(self.folder / "torch.txt")
        return run_script("install-torch.sh", backend, file, path=self.folder, PYTHONPATH=str(self.folder))

    @property
    def asked(self) -> list[str]:
        """Where torch was looked for, in order."""
        marks = {"--no-index": "disk", "--torch-backend": "PyTorch's index"}
        lines = (self.folder / "log").read_text().splitlines()
        return [next((name for mark, name in marks.items() if mark in line), "package index") for line in lines]


@pytest.fixture
def torch(tmp_path: Path) -> Torch:
    return Torch(tmp_path)


def test_a_wheel_on_disk_comes_first(torch: Torch) -> None:
    assert torch.install("cpu", places="*", built="").returncode == 0
    assert torch.asked == ["disk", "package index"]


def test_pytorchs_index_comes_before_the_package_index(torch: Torch) -> None:
    done = torch.install("cu130", places="*--torch-backend=cu130*|*'install --requirement'*", built="13.0")
    assert done.returncode == 0
    assert torch.asked == ["disk", "PyTorch's index", "package index"]
    assert "built for cu130" in done.stdout


def test_the_package_index_is_asked_when_pytorchs_does_not_answer(torch: Torch) -> None:
    done = torch.install("cpu", places="*'install --requirement'*", built="13.0")
    assert done.returncode == 0
    assert torch.asked == ["disk", "PyTorch's index", "package index"]
    assert "asked for cpu, found cu130" in done.stderr


@pytest.mark.parametrize(("built", "found"), [("", "cpu"), ("12.8", "cu128")])
def test_an_image_for_cuda_gets_no_other_build(built: str, found: str, torch: Torch) -> None:
    done = torch.install("cu130", places="*", built=built)
    assert done.returncode == 1
    assert f"asked for cu130, found {found}" in done.stderr


def test_no_torch_anywhere_is_a_failure(torch: Torch) -> None:
    assert torch.install("cpu", places="nothing", built="").returncode != 0


@pytest.mark.parametrize(
    ("accelerator", "kept"),
    [("cpu", {"cpu"}), ("cuda", {"cpu", "cuda130"}), ("", {"cpu", "cuda130", "cuda128", "rocm70"})],
)
def test_trimming_takes_tests_and_libraries_of_other_accelerators(
    accelerator: str, kept: set[str], tmp_path: Path
) -> None:
    packages = tmp_path / "packages"
    names = [
        "torch/test/a",
        "torch/bin/protoc",
        "torch/bin/torch_shm_manager",
        "numpy/_core/tests/_natype.py",
        "pandas/tests/a",
    ]
    names += [f"bitsandbytes/libbitsandbytes_{each}.so" for each in ("cpu", "cuda130", "cuda128", "rocm70")]
    for name in names:
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    write_program(tmp_path / "python", f'case "$*" in *torch*) echo 130 ;; *) echo {packages} ;; esac')
    arguments = [accelerator] if accelerator else []
    assert run_script("trim.sh", *arguments, path=tmp_path).returncode == 0
    assert (packages / "torch/bin/torch_shm_manager").exists()
    # numpy.testing imports it
    assert (packages / "numpy/_core/tests/_natype.py").exists()
    assert not [name for name in ("torch/test", "torch/bin/protoc", "pandas/tests") if (packages / name).exists()]
    assert {path.stem.removeprefix("libbitsandbytes_") for path in packages.glob("bitsandbytes/*.so")} == kept


@pytest.mark.parametrize(("built", "rc"), [("SHM_COMM CPU_ADAM", 0), ("SHM_COMM", 1)])
def test_a_wheel_without_an_op_that_was_asked_for_is_refused(built: str, rc: int, tmp_path: Path) -> None:
    out, pins_folder = tmp_path / "out", tmp_path / "pins"
    out.mkdir()
    pins_folder.mkdir()
    write_program(tmp_path / "uv", "exit 0")
    make = tmp_path / "make.py"
    make.write_text(
        "import os, sys, zipfile\n"
        "with zipfile.ZipFile(sys.argv[1], 'w') as wheel:\n"
        f"    for op in {built.split()}:\n"
        "        assert os.environ['DS_BUILD_' + op] == '1' and os.environ['DS_ACCELERATOR'] == 'cpu'\n"
        "        wheel.writestr(f'deepspeed/{op.lower()}_op.so', '')\n"
    )
    write_program(
        tmp_path / "python",
        f'case "$*" in *"pip wheel"*) exec {sys.executable} {make} {out}/d.whl ;; esac; exec {sys.executable} "$@"',
    )
    done = run_script("build-deepspeed.sh", "cpu", "SHM_COMM CPU_ADAM", str(pins_folder), str(out), path=tmp_path)
    assert done.returncode == rc, done.stderr
    assert ("CPU_ADAM" in done.stderr) == bool(rc)
