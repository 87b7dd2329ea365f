import errno
import os
from pathlib import Path

import pytest

from sftjob.errors import Denied, DiskFull, StorageError
from sftjob.storage import FolderStore
from tests.store_contract import StoreContract, listed, sha256


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    return FolderStore(tmp_path_factory.mktemp("store") / "not yet there")


class TestFolderStore(StoreContract):
    pass


def _folder(store: FolderStore) -> Path:
    return Path(store.at("x").uri.removeprefix("file://").replace("%20", " ")).parent


def _fails_with(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, DiskFull), (errno.EACCES, Denied), (errno.EROFS, Denied), (errno.EIO, StorageError)],
)
def test_errors_of_the_disk(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    _fails_with(monkeypatch, number)

    with pytest.raises(error, match=r"commits/1"):
        store.put_bytes("commits/1", b"x", if_absent=True)
    assert listed(store) == []
    assert store.abort_stale_uploads() == 0


def test_unfinished_files_are_invisible_and_can_be_removed(store: FolderStore) -> None:
    store.put_bytes("a/b", b"x")
    left = _folder(store) / ".sftjob" / "left"
    left.write_bytes(b"half")

    assert listed(store) == ["a/b"]
    assert store.abort_stale_uploads() == 0, "somebody may be writing it"
    os.utime(left, (0, 0))
    assert store.abort_stale_uploads() == 1
    assert store.abort_stale_uploads() == 0


def test_no_way_out_through_links(store: FolderStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"s")
    store.put_bytes("a", b"x")
    (_folder(store) / "link").symlink_to(outside)
    (_folder(store) / "file").symlink_to(outside / "secret")

    for use in (
        lambda: store.get_bytes("link/secret"),
        lambda: store.get_bytes("file"),
        lambda: store.put_bytes("link/new", b"x"),
        lambda: store.at("link"),
        lambda: store.delete("link/secret"),
        lambda: store.list("link/"),
    ):
        with pytest.raises(StorageError, match="symbolic link"):
            use()
    assert listed(store) == ["a"]
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_empty_folders_go_with_their_last_object(store: FolderStore) -> None:
    store.put_bytes("a/b/c", b"x")
    store.put_bytes("a/d", b"x")

    store.delete("a/b/c")

    assert [path.name for path in (_folder(store) / "a").iterdir()] == ["d"]


def test_an_object_below_an_object(store: FolderStore) -> None:
    store.put_bytes("a", b"x")

    with pytest.raises(StorageError, match="a/b"):
        store.put_bytes("a/b", b"x")


def test_file_system_without_hard_links(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(os, "link", link)

    with pytest.raises(StorageError, match="no hard links"):
        store.put_bytes("a", b"x", if_absent=True)
    store.put_bytes("a", b"x")


def test_reader_sees_old_or_new_content(store: FolderStore, tmp_path: Path) -> None:
    """A put that dies before its end leaves the old object."""
    store.put_bytes("a", b"old")
    (tmp_path / "in").write_bytes(b"new")

    with pytest.raises(StorageError, match="changed"):
        store.put_file("a", tmp_path / "in", sha256=sha256(b"promised"))
    assert store.get_bytes("a") == b"old"


def test_relative_folder() -> None:
    with pytest.raises(StorageError, match="absolute"):
        FolderStore(Path("runs"))
