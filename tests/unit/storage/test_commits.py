from pathlib import Path

import pytest

from sftjob.contract import ExitCode, keys
from sftjob.errors import ConfigurationError, Denied, NotFound, StorageError, Superseded, Unavailable
from sftjob.records import Commit, FileEntry, Part
from sftjob.storage import (
    FolderStore,
    committed_by,
    list_commits,
    merge_parts,
    prune_commits,
    read_commit,
    restore_latest,
    restore_step,
    upload_folder,
    write_commit,
)
from tests.store_contract import listed, sha256

SPEC = sha256(b"spec")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def checkpoint(store: FolderStore, tmp_path: Path, step: int, *, attempt: int = 1, **changes: object) -> Commit:
    """Two files and, unless told otherwise, their COMMIT."""
    folder = tmp_path / "local" / f"{step}-{attempt}"
    folder.mkdir(parents=True)
    (folder / "model").write_bytes(f"weights {step} {attempt}".encode())
    (folder / "optimizer").write_bytes(f"state {step} {attempt}".encode())
    files = upload_folder(store, folder, keys.checkpoint(step, attempt))
    values = {"run_id": "run", "attempt": attempt, "step": step, "spec_sha256": SPEC, "world_size": 1, "files": files}
    return Commit.model_validate(values | changes)


def committed(store: FolderStore, tmp_path: Path, *steps: int) -> None:
    for step in steps:
        write_commit(store, checkpoint(store, tmp_path, step))


def restore(store: FolderStore, tmp_path: Path, warnings: list[str]) -> Commit | None:
    return restore_latest(store, tmp_path / "resume", spec_sha256=SPEC, world_size=1, warn=warnings.append)


def test_steps_ascend(store: FolderStore, tmp_path: Path) -> None:
    committed(store, tmp_path, 9, 100, 20)
    store.put_bytes("commits/notes.txt", b"not ours")

    assert list_commits(store) == [9, 20, 100]
    assert read_commit(store, 20).step == 20
    with pytest.raises(NotFound):
        read_commit(store, 21)


def test_commit_under_a_wrong_name(store: FolderStore, tmp_path: Path) -> None:
    store.put_bytes(keys.commit(8), checkpoint(store, tmp_path, 7).to_json())

    with pytest.raises(StorageError, match=r"0000000008\.json: step: says step 7"):
        read_commit(store, 8)


class TestWriteCommit:
    def test_again_is_no_harm(self, store: FolderStore, tmp_path: Path) -> None:
        commit = checkpoint(store, tmp_path, 5)

        write_commit(store, commit)
        write_commit(store, commit)

        assert read_commit(store, 5) == commit

    @pytest.mark.parametrize("other", [2, 3])
    def test_a_writer_as_new_or_newer_stands(self, store: FolderStore, tmp_path: Path, other: int) -> None:
        theirs = checkpoint(store, tmp_path, 5, attempt=other)
        write_commit(store, theirs)
        ours = theirs.model_copy(update={"attempt": 2, "files": ()})

        with pytest.raises(Superseded, match=r"0000000005\.json"):
            write_commit(store, ours)
        assert read_commit(store, 5) == theirs

    @pytest.mark.parametrize("left", ["whole", "unreadable"])
    def test_what_an_older_attempt_has_left_is_replaced(self, store: FolderStore, tmp_path: Path, left: str) -> None:
        write_commit(store, checkpoint(store, tmp_path, 5, attempt=1))
        if left == "unreadable":
            store.put_bytes(keys.commit(5), b"{")
        ours = checkpoint(store, tmp_path, 5, attempt=2)

        write_commit(store, ours)

        assert read_commit(store, 5) == ours


class TestRestoreLatest:
    def test_newest(self, store: FolderStore, tmp_path: Path) -> None:
        committed(store, tmp_path, 5, 10)
        checkpoint(store, tmp_path, 15)
        warnings: list[str] = []

        commit = restore(store, tmp_path, warnings)

        assert commit is not None
        assert commit.step == 10
        assert (tmp_path / "resume" / "model").read_bytes() == b"weights 10 1"
        assert warnings == []

    def test_nothing_yet(self, store: FolderStore, tmp_path: Path) -> None:
        checkpoint(store, tmp_path, 5)

        assert restore(store, tmp_path, []) is None
        assert not (tmp_path / "resume").exists()

    @pytest.mark.parametrize("victim", ["model", "optimizer", "commit"])
    def test_falls_back_aloud(self, store: FolderStore, tmp_path: Path, victim: str) -> None:
        committed(store, tmp_path, 5, 10)
        key = keys.commit(10) if victim == "commit" else keys.checkpoint(10, 1, victim)
        store.put_bytes(key, bytes([store.get_bytes(key)[0] ^ 1]) + store.get_bytes(key)[1:])
        warnings: list[str] = []

        commit = restore(store, tmp_path, warnings)

        assert commit is not None
        assert commit.step == 5
        assert (tmp_path / "resume" / "optimizer").read_bytes() == b"state 5 1"
        assert len(warnings) == 1
        assert key in warnings[0]
        assert "step 10" in warnings[0]

    def test_all_broken_is_no_silent_restart(self, store: FolderStore, tmp_path: Path) -> None:
        committed(store, tmp_path, 5, 10)
        for step in (5, 10):
            store.delete(keys.checkpoint(step, 1, "model"))
        warnings: list[str] = []

        with pytest.raises(StorageError, match=r"none of 2 checkpoints is whole.*--new-run") as error:
            restore(store, tmp_path, warnings)
        assert error.value.exit_code == ExitCode.STORAGE
        assert len(warnings) == 2
        assert not (tmp_path / "resume").exists()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"spec_sha256": sha256(b"other")}, f"spec_sha256: .*{sha256(b'other')[:12]}.*{SPEC[:12]}"),
            ({"world_size": 4}, "world_size: .*4 processes, now there are 1"),
        ],
    )
    def test_another_spec_or_world_size(
        self, store: FolderStore, tmp_path: Path, changes: dict[str, object], message: str
    ) -> None:
        committed(store, tmp_path, 5)
        write_commit(store, checkpoint(store, tmp_path, 10, **changes))

        with pytest.raises(ConfigurationError, match=rf"0000000010\.json: {message}"):
            restore(store, tmp_path, [])

    @pytest.mark.parametrize("trouble", [Unavailable("503"), Denied("403")])
    def test_a_store_in_trouble_is_no_damaged_checkpoint(
        self, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Exception
    ) -> None:
        committed(store, tmp_path, 5, 10)

        def get_file(*_: object, **__: object) -> None:
            raise trouble

        monkeypatch.setattr(store, "get_file", get_file)

        with pytest.raises(type(trouble)):
            restore(store, tmp_path, [])


class TestPruneCommits:
    def test_newest_stay(self, store: FolderStore, tmp_path: Path) -> None:
        committed(store, tmp_path, 5, 10, 15, 20)
        checkpoint(store, tmp_path, 3)
        checkpoint(store, tmp_path, 17)
        checkpoint(store, tmp_path, 25)

        prune_commits(store, 2)

        assert list_commits(store) == [15, 20]
        assert {key.split("/")[1] for key in listed(store, "checkpoints/")} == {
            f"{step:010d}" for step in (15, 17, 20, 25)
        }

    @pytest.mark.parametrize("keep", [0, -1, 1])
    def test_one_always_stays(self, store: FolderStore, tmp_path: Path, keep: int) -> None:
        committed(store, tmp_path, 5, 10)

        prune_commits(store, keep)

        assert list_commits(store) == [10]
        assert restore(store, tmp_path, []) is not None

    def test_without_commits_nothing_goes(self, store: FolderStore, tmp_path: Path) -> None:
        checkpoint(store, tmp_path, 5)

        prune_commits(store, 1)

        assert len(listed(store)) == 2

    def test_whatever_interrupts_it_every_commit_has_its_files(
        self, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        committed(store, tmp_path, 5, 10, 15)
        delete = store.delete
        for allowed in range(7):
            left = allowed

            def dying(key: str) -> None:
                nonlocal left
                if left == 0:
                    raise Unavailable("gone")
                left -= 1
                delete(key)

            monkeypatch.setattr(store, "delete", dying)
            try:
                prune_commits(store, 1)
            except Unavailable:
                for step in list_commits(store):
                    assert {entry.key for entry in read_commit(store, step).files} <= set(listed(store))

        assert listed(store) == [keys.checkpoint(15, 1, "model"), keys.checkpoint(15, 1, "optimizer"), keys.commit(15)]


class TestRestoreStep:
    """Peers restore the step that pod 0 names, whatever else is there."""

    def test_not_the_newest(self, store: FolderStore, tmp_path: Path) -> None:
        committed(store, tmp_path, 5, 7)

        assert restore_step(store, 5, tmp_path / "resume", spec_sha256=SPEC, world_size=1).step == 5
        assert (tmp_path / "resume" / "model").read_bytes() == b"weights 5 1"

    def test_a_damaged_one_is_not_passed_over(self, store: FolderStore, tmp_path: Path) -> None:
        committed(store, tmp_path, 5, 7)
        store.put_bytes(keys.checkpoint(7, 1, "model"), b"weights 7 2")

        with pytest.raises(StorageError, match="sha256"):
            restore_step(store, 7, tmp_path / "resume", spec_sha256=SPEC, world_size=1)

    def test_another_world_is_refused(self, store: FolderStore, tmp_path: Path) -> None:
        committed(store, tmp_path, 5)

        with pytest.raises(ConfigurationError, match="world_size"):
            restore_step(store, 5, tmp_path / "resume", spec_sha256=SPEC, world_size=2)


def test_commits_of_an_attempt_are_told_from_those_of_older_ones(store: FolderStore, tmp_path: Path) -> None:
    committed(store, tmp_path, 5, 9)
    for step in (6, 7):
        write_commit(store, checkpoint(store, tmp_path, step, attempt=2))

    assert [committed_by(store, 2, step) for step in (5, 7, 8)] == [7, 7, None]
    assert committed_by(store, 1, 6) == 9


def test_of_a_name_that_nodes_share_the_lowest_one_s_file_counts() -> None:
    def part(node: int, *paths: str) -> Part:
        files = (FileEntry(path=path, key=f"{node}/{path}", size=1, sha256=SPEC) for path in paths)
        return Part(node=node, files=tuple(files))

    merged = merge_parts([part(1, "latest", "rng_state_1.pth"), part(0, "optimizer.pt", "latest"), part(2, "latest")])

    assert [entry.key for entry in merged] == ["0/latest", "0/optimizer.pt", "1/rng_state_1.pth"]
