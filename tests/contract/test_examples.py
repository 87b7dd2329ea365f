"""Every example is one that works, and editors know its schema."""

from pathlib import Path

from sftjob.spec.load import load_spec

HEADER = "# yaml-language-server: $schema="


def test_examples_load(root: Path) -> None:
    # Profiles have a test of their own.
    files = sorted(file for file in (root / "examples").rglob("*.yaml") if file.parent.name != "profiles")

    assert len(files) >= 1
    for file in files:
        assert load_spec(file).spec.name, file


def test_examples_name_their_schema(root: Path) -> None:
    for file in (root / "examples").rglob("*.yaml"):
        first = file.read_text(encoding="utf-8").partition("\n")[0]
        assert first.startswith(HEADER), file
        target = first.removeprefix(HEADER)
        assert "://" in target or (file.parent / target).is_file(), f"{file}: {target} is not there"
