"""Nothing of the machine on which this was written gets into the repository."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

FORBIDDEN = {
    # Written so that this file does not match itself.
    "path of a machine": re.compile(r"(?<![\w.-])/(?:work|root|home)/[\w.-]+"),
    "address of a package": re.compile(r"https?://[\w.-]+/(?:simple|packages)/"),
    "AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "hub token": re.compile(r"\bhf_[A-Za-z]{30,}\b"),
    "private key": re.compile(r"-{5}BEGIN [A-Z ]*PRIVATE KEY"),
}
INDEX_VARIABLES = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "UV_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "HF_ENDPOINT",
)
PUBLIC_HOSTS = {"huggingface.co"}


def leaks(text: str) -> Iterator[str]:
    for what, pattern in FORBIDDEN.items():
        if found := pattern.search(text):
            yield f"{what}: {found[0]}"
    for host in index_hosts():
        if host in text:
            yield f"host of this machine's package index: {host}"


def index_hosts() -> set[str]:
    """Hosts that this machine's own settings name."""
    urls = " ".join(os.environ.get(name, "") for name in INDEX_VARIABLES).split()
    return {host for url in urls if (host := urlsplit(url).hostname or "")} - PUBLIC_HOSTS


@pytest.fixture(scope="module")
def files(root: Path) -> list[Path]:
    """Whatever git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := root / name).is_file()]


def test_files_are_clean(files: list[Path]) -> None:
    assert len(files) > 50
    found = [f"{file}: {leak}" for file in files for leak in leaks(file.read_text(encoding="utf-8", errors="replace"))]

    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "see /" + "work/main/sftjob",
        "'/" + "root/.cache'",
        "/" + "home/someone/x",
        "https://" + "mirror.example/simple/torch",
        "AKIA" + "A1B2" * 4,
        "hf_" + "a" * 34,
        "-----BEGIN RSA " + "PRIVATE KEY-----",
    ],
)
def test_a_leak_is_found(text: str) -> None:
    assert len(list(leaks(text))) == 1


@pytest.mark.parametrize(
    "text", ["/workspace/home", "sftjob/" + "work/x", "https://huggingface.co/docs", "../shared/data"]
)
def test_ordinary_text_passes(text: str) -> None:
    assert not list(leaks(text))


def test_host_of_the_index_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:secret@mirror.internal:8443/pypi")

    assert list(leaks("from mirror.internal")) == ["host of this machine's package index: mirror.internal"]
