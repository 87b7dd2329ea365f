"""What every ObjectStore must do. Each kind of store has a test class that inherits this and provides `store`."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from sftjob.contract import keys
from sftjob.errors import Exists, NotFound, StorageError
from sftjob.storage import ObjectStore, claim_attempt, newest_attempt, probe


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def listed(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


class StoreContract:
    """`store` must move files of more than 6 MiB in more than one piece where it knows pieces."""

    def test_bytes_come_back(self, store: ObjectStore) -> None:
        store.put_bytes("a/b.json", b"one")
        store.put_bytes("a/b.json", b"other")

        assert store.get_bytes("a/b.json") == b"other"
        assert store.head("a/b.json").size == 5

    def test_conditional_put_refuses_other_content(self, store: ObjectStore) -> None:
        store.put_bytes("a/b", b"first", if_absent=True)

        with pytest.raises(Exists, match="a/b"):
            store.put_bytes("a/b", b"second", if_absent=True)
        for other in (b"first and more", b"fir", b""):
            with pytest.raises(Exists):
                store.put_bytes("a/b", other, if_absent=True)
        assert store.get_bytes("a/b") == b"first"

    def test_conditional_put_takes_its_own_content_again(self, store: ObjectStore) -> None:
        store.put_bytes("a", b"mine", if_absent=True)

        store.put_bytes("a", b"mine", if_absent=True)

    def test_one_of_eight_creators_wins(self, store: ObjectStore) -> None:
        start = Barrier(8)

        def create(number: int) -> bool:
            start.wait()
            try:
                store.put_bytes("race/key", f"creator {number}".encode(), if_absent=True)
            except Exists:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(create, range(8)))

        assert won.count(True) == 1
        assert store.get_bytes("race/key") == f"creator {won.index(True)}".encode()

    def test_absent_objects(self, store: ObjectStore, tmp_path: Path) -> None:
        for ask in (store.get_bytes, store.head):
            with pytest.raises(NotFound, match="no/such"):
                ask("no/such")
        with pytest.raises(NotFound, match="no/such"):
            store.get_file("no/such", tmp_path / "file", size=1, sha256=sha256(b"x"))
        store.delete("no/such")
        assert list(tmp_path.iterdir()) == []

    def test_a_prefix_is_no_object(self, store: ObjectStore) -> None:
        store.put_bytes("a/b", b"x")

        with pytest.raises(NotFound):
            store.get_bytes("a")

    def test_small_object_that_is_large(self, store: ObjectStore) -> None:
        store.put_bytes("big", bytes(101))

        assert len(store.get_bytes("big", max_bytes=101)) == 101
        with pytest.raises(StorageError, match=r"big.*100 "):
            store.get_bytes("big", max_bytes=100)

    @pytest.mark.parametrize("size", [0, 1, 5 * 2**20, 11 * 2**20 + 7])
    def test_file_comes_back(self, store: ObjectStore, tmp_path: Path, size: int) -> None:
        data = os.urandom(size)
        (tmp_path / "in").write_bytes(data)

        store.put_file("dir/file", tmp_path / "in", sha256=sha256(data))
        store.get_file("dir/file", tmp_path / "new" / "out", size=size, sha256=sha256(data))

        assert (tmp_path / "new" / "out").read_bytes() == data
        assert listed(store) == ["dir/file"]

    @pytest.mark.parametrize("size", [10, 11 * 2**20])
    def test_file_that_changed_is_not_published(self, store: ObjectStore, tmp_path: Path, size: int) -> None:
        (tmp_path / "in").write_bytes(bytes(size))

        with pytest.raises(StorageError, match=r"in: the file changed"):
            store.put_file("file", tmp_path / "in", sha256=sha256(b"promised"))
        assert listed(store) == []
        assert store.abort_stale_uploads() == 0

    def test_file_that_is_not_there(self, store: ObjectStore, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="missing"):
            store.put_file("file", tmp_path / "missing", sha256=sha256(b""))

    @pytest.mark.parametrize("size", [10, 11 * 2**20])
    def test_damaged_object_is_named_and_leaves_nothing(self, store: ObjectStore, tmp_path: Path, size: int) -> None:
        good = bytes(size)
        store.put_bytes("dir/file", bytes([1]) + good[1:])
        (tmp_path / "out").write_bytes(b"what was there")

        with pytest.raises(StorageError, match=rf"dir/file.*sha256 .* instead of {sha256(good)}"):
            store.get_file("dir/file", tmp_path / "out", size=size, sha256=sha256(good))
        with pytest.raises(StorageError, match=rf"dir/file.*{size} bytes instead of {size + 1}"):
            store.get_file("dir/file", tmp_path / "out", size=size + 1, sha256=sha256(good))
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        assert (tmp_path / "out").read_bytes() == b"what was there"

    def test_hash_may_be_unknown(self, store: ObjectStore, tmp_path: Path) -> None:
        store.put_bytes("file", b"abc")

        store.get_file("file", tmp_path / "out", size=3, sha256=None)
        with pytest.raises(StorageError, match="3 bytes instead of 2"):
            store.get_file("file", tmp_path / "out", size=2, sha256=None)
        assert (tmp_path / "out").read_bytes() == b"abc"

    def test_list_is_ascending_by_string_prefix(self, store: ObjectStore) -> None:
        for key in ("b/2", "a-b", "a/b", "b/10", "b1", "ä"):
            store.put_bytes(key, b"x")

        assert listed(store) == ["a-b", "a/b", "b/10", "b/2", "b1", "ä"]
        assert listed(store, "b") == ["b/10", "b/2", "b1"]
        assert listed(store, "b/") == ["b/10", "b/2"]
        assert listed(store, "b/1") == ["b/10"]
        assert listed(store, "none/") == []
        assert [info.size for info in store.list("a-b")] == [1]

    def test_part_of_a_store(self, store: ObjectStore) -> None:
        part = store.at("run-1").at("deep/er/")
        part.put_bytes("x", b"1")
        store.put_bytes("run-10/x", b"2")

        assert store.get_bytes("run-1/deep/er/x") == b"1"
        assert listed(part) == ["x"]
        assert listed(store.at("run-1")) == ["deep/er/x"]
        assert part.uri == f"{store.uri}/run-1/deep/er"
        part.delete("x")
        assert listed(store) == ["run-10/x"]

    @pytest.mark.parametrize(
        "key",
        ["", "/a", "../a", "a/../b", "a/..", "a//b", "a/", "./a", "a\0b", "a\nb", ".sftjob/x", "x" * 1025, "\ud800"],
    )
    def test_unusable_keys(self, store: ObjectStore, tmp_path: Path, key: str) -> None:
        for use in (
            store.get_bytes,
            store.head,
            store.delete,
            lambda key: store.put_bytes(key, b"x"),
            lambda key: store.put_file(key, tmp_path / "in", sha256=sha256(b"")),
            lambda key: store.get_file(key, tmp_path / "out", size=0, sha256=None),
        ):
            with pytest.raises(StorageError, match="no usable object key"):
                use(key)

    def test_probe_passes_and_leaves_nothing(self, store: ObjectStore) -> None:
        probe(store, single_writer=False)
        probe(store, single_writer=True)

        assert listed(store) == []

    def test_claimers_get_a_number_each(self, store: ObjectStore) -> None:
        start = Barrier(4)

        def claim(number: int) -> int:
            start.wait()
            return claim_attempt(
                store,
                owner="job",
                pod_uid=f"pod-{number}",
                nodes=1,
                clock=lambda: 0.0,
                sleep=lambda _: None,
                patience_seconds=0,
            )

        with ThreadPoolExecutor(4) as pool:
            attempts = list(pool.map(claim, range(4)))

        assert sorted(attempts) == [1, 2, 3, 4]
        assert newest_attempt(store) == 4
        for number, attempt in enumerate(attempts):
            assert f"pod-{number}" in store.get_bytes(keys.claim(attempt)).decode()
