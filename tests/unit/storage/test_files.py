import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from sftjob.errors import DiskFull, NotFound, StorageError
from sftjob.records import FileEntry
from sftjob.storage import FolderStore, fetch_files, hash_file, list_files, upload_files, upload_folder
from tests.store_contract import listed, sha256


class Usage(NamedTuple):
    free: int


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.bin").write_bytes(b"bb")
    (folder / "sub" / "a.bin").write_bytes(b"aaa")
    (folder / ".hidden").write_bytes(b"")
    return folder


def test_folder_there_and_back(store: FolderStore, folder: Path, tmp_path: Path) -> None:
    up: list[tuple[int, int]] = []
    down: list[tuple[int, int]] = []

    entries = upload_folder(store, folder, "checkpoints/1/", on_progress=lambda *both: up.append(both))
    fetch_files(store, entries, tmp_path / "into", on_progress=lambda *both: down.append(both))

    assert [entry.path for entry in entries] == [".hidden", "b.bin", "sub/a.bin"]
    assert [entry.key for entry in entries] == [f"checkpoints/1/{entry.path}" for entry in entries]
    assert [entry.size for entry in entries] == [0, 2, 3]
    assert entries[1].sha256 == sha256(b"bb") == hash_file(folder / "b.bin")
    assert up == down == [(0, 5), (2, 5), (5, 5)]
    assert (tmp_path / "into" / "sub" / "a.bin").read_bytes() == b"aaa"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "into", "store"]


def test_some_files(store: FolderStore, folder: Path) -> None:
    entries = upload_files(store, folder, [folder / "sub" / "a.bin"], "x")

    assert [entry.path for entry in entries] == ["sub/a.bin"]
    assert listed(store) == ["x/sub/a.bin"]


@pytest.mark.parametrize("link_to", ["b.bin", "sub", "/nowhere"])
def test_links_are_refused(store: FolderStore, folder: Path, link_to: str) -> None:
    (folder / "link").symlink_to(link_to)

    with pytest.raises(StorageError, match="link: not a plain file"):
        upload_folder(store, folder, "x")
    assert listed(store) == []


def test_pipes_are_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe")

    with pytest.raises(StorageError, match="pipe: not a plain file"):
        list_files(folder)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such folder"):
        list_files(tmp_path / "none")


@pytest.mark.parametrize("path", ["../out", "/out", "a/../../out", "a//b", "", "a\0b"])
def test_no_way_out_through_a_manifest(store: FolderStore, tmp_path: Path, path: str) -> None:
    store.put_bytes("k", b"x")
    entries = [FileEntry(path=path, key="k", size=1, sha256=sha256(b"x"))]

    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(StorageError, match="no usable object key"):
        fetch_files(store, entries, tmp_path / "deep" / "into")
    assert sorted(tmp_path.rglob("*")) == before


def test_path_named_twice(store: FolderStore, tmp_path: Path) -> None:
    store.put_bytes("k", b"x")
    entry = FileEntry(path="a", key="k", size=1, sha256=sha256(b"x"))

    with pytest.raises(StorageError, match="a: the list of files names a path twice"):
        fetch_files(store, [entry, entry], tmp_path / "into")


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "delete", "swap"])
@pytest.mark.parametrize("victim", ["b.bin", "sub/a.bin"])
def test_damage_is_refused_by_name_and_leaves_what_was_there(
    store: FolderStore, folder: Path, tmp_path: Path, damage: str, victim: str
) -> None:
    entries = upload_folder(store, folder, "c")
    key = f"c/{victim}"
    data = store.get_bytes(key)
    damaged = {"flip": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "grow": data + b"x", "swap": b"zz"}
    if damage == "delete":
        store.delete(key)
    else:
        store.put_bytes(key, damaged[damage])
    into = tmp_path / "into"
    into.mkdir()
    (into / "old").write_bytes(b"old")

    with pytest.raises(NotFound if damage == "delete" else StorageError, match=key):
        fetch_files(store, entries, into)
    assert [path.name for path in into.iterdir()] == ["old"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "into", "store"]


def test_replaces_the_folder_as_a_whole(store: FolderStore, folder: Path, tmp_path: Path) -> None:
    into = tmp_path / "into"
    into.mkdir()
    (into / "old").write_bytes(b"old")
    left = tmp_path / ".into.partial"
    left.mkdir()
    (left / "half").write_bytes(b"from a killed process")

    fetch_files(store, upload_folder(store, folder, "c"), into)

    assert list_files(into) == [into / ".hidden", into / "b.bin", into / "sub" / "a.bin"]
    assert not left.exists()


def test_files_that_do_not_fit(
    store: FolderStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = upload_folder(store, folder, "c")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free=4))

    with pytest.raises(DiskFull, match="5 bytes do not fit into 4"):
        fetch_files(store, entries, tmp_path / "into")
    assert not (tmp_path / "into").exists()
