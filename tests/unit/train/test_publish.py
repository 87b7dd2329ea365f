import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sftjob.contract import keys
from sftjob.errors import StorageError, Superseded, Unavailable
from sftjob.records import Part, read_record
from sftjob.spec import sha256_hex
from sftjob.storage import FolderStore, list_commits, read_commit, restore_latest
from sftjob.train.attempt import Attempt
from sftjob.train.publish import Publisher, forget_older, newest_saved, publish_checkpoint


class Crash(Exception):
    """The process ends here."""


class Fragile(FolderStore):
    """Crashes at the nth action that changes the store: before it, or when it is done but nobody has learned of it."""

    def __init__(self, folder: Path, nth: int, *, before: bool) -> None:
        super().__init__(folder)
        self.left = nth
        self.before = before

    def _change(self, action: Callable[[], None]) -> None:
        self.left -= 1
        if self.left == 0 and self.before:
            raise Crash
        if self.left < 0:
            raise Crash  # a crashed process does nothing more; uploads run in two threads
        action()
        if self.left == 0:
            raise Crash

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._change(lambda: FolderStore.put_bytes(self, key, data, if_absent=if_absent))

    def put_file(self, key: str, path: Path, *, sha256: str) -> None:
        self._change(lambda: FolderStore.put_file(self, key, path, sha256=sha256))

    def delete(self, key: str) -> None:
        self._change(lambda: FolderStore.delete(self, key))


def save(attempt: Attempt, step: int, **more: bytes) -> None:
    folder = attempt.work.checkpoint(step)
    folder.mkdir()
    files = {"weights.bin": f"weights {step}".encode(), "state.json": json.dumps({"step": step}).encode(), **more}
    for name, data in files.items():
        (folder / name.replace("_dot_", ".")).write_bytes(data)
    attempt.work.saved(step, 0).touch()


def publish(attempt: Attempt, step: int) -> None:
    publish_checkpoint(attempt, step)
    forget_older(attempt, step)


def restored(attempt: Attempt, into: Path) -> int | None:
    """Step of what a reader gets, after it has been verified; a damaged checkpoint is an error here."""

    def refuse(line: str) -> None:
        raise AssertionError(line)

    commit = restore_latest(attempt.store, into, spec_sha256=attempt.spec_sha256, world_size=1, warn=refuse)
    if commit is None:
        return None
    assert (into / "weights.bin").read_text() == f"weights {commit.step}"
    return commit.step


def test_a_commit_names_every_file_and_what_it_belongs_to(attempt: Attempt) -> None:
    save(attempt, 7)
    publish(attempt, 7)
    commit = read_commit(attempt.store, 7)
    assert (commit.run_id, commit.attempt, commit.world_size) == (attempt.job.run_id, 1, 1)
    assert commit.spec_sha256 == sha256_hex(attempt.store.get_bytes(keys.SPEC))
    assert [entry.key for entry in commit.files] == [
        keys.checkpoint(7, 1, "state.json"),
        keys.checkpoint(7, 1, "weights.bin"),
    ]
    part = read_record(Part, attempt.store.get_bytes(keys.part(7, 1, 0)), "part")
    assert part.files == commit.files


# Two files, part, COMMIT; then the COMMIT of step 1 and its three objects are deleted: 8 actions.
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("nth", range(1, 9))
def test_a_crash_anywhere_leaves_the_old_or_the_new_checkpoint(
    attempt: Attempt, tmp_path: Path, nth: int, before: bool
) -> None:
    for step in (1, 2):
        save(attempt, step)
        publish(attempt, step)
    save(attempt, 3)
    folder = tmp_path / "store" / attempt.job.run_id
    fragile = replace(attempt, store=Fragile(folder, nth, before=before))
    with pytest.raises(Crash):
        publish(fragile, 3)

    assert restored(attempt, tmp_path / "resume") == (3 if nth > 4 or (nth == 4 and not before) else 2)

    later = replace(attempt, number=2)
    for step in (3, 4):
        if step == 4:
            save(later, step)
        publish(later, step)
    assert restored(later, tmp_path / "resume") == 4
    assert list_commits(attempt.store) == [3, 4]
    old = [info.key for info in attempt.store.list("checkpoints/") if "/0000000001/" in info.key]
    assert old == []


def test_that_was_every_action(attempt: Attempt, tmp_path: Path) -> None:
    for step in (1, 2):
        save(attempt, step)
        publish(attempt, step)
    save(attempt, 3)
    store = Fragile(tmp_path / "store" / attempt.job.run_id, 1000, before=True)
    publish(replace(attempt, store=store), 3)
    assert 1000 - store.left == 8


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("model.safetensors", (1000).to_bytes(8, "little") + b'{"a":', "cut off inside its header"),
        ("optimizer.pt", b"PK\x03\x04 and no more", "cut off"),
        ("rng_state.pth", b"", "empty"),
        ("trainer_state.json", b'{"step": 1', "Expecting"),
        ("training_args.bin", b"", "empty"),
    ],
)
def test_a_file_that_is_cut_is_refused_by_name(attempt: Attempt, name: str, data: bytes, reason: str) -> None:
    save(attempt, 1)
    (attempt.work.checkpoint(1) / name).write_bytes(data)
    with pytest.raises(StorageError, match=f"{name}: not uploaded: .*{reason}"):
        publish_checkpoint(attempt, 1)
    assert [info.key for info in attempt.store.list()] == [keys.SPEC]


def test_whole_files_of_all_kinds_are_taken(attempt: Attempt) -> None:
    save(attempt, 1)
    folder = attempt.work.checkpoint(1)
    with zipfile.ZipFile(folder / "optimizer.pt", "w") as archive:
        archive.writestr("data.pkl", b"x")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert len(publish_checkpoint(attempt, 1).files) == 4


def test_nothing_is_committed_when_a_newer_attempt_exists(attempt: Attempt) -> None:
    save(attempt, 1)
    claim = {"attempt": 2, "owner": "other", "time": "2026-01-01"}
    attempt.store.put_bytes(keys.claim(2), json.dumps(claim).encode())
    with pytest.raises(Superseded, match="attempt 2"):
        publish_checkpoint(attempt, 1)
    assert list_commits(attempt.store) == []


def test_a_step_is_saved_when_every_local_rank_says_so(attempt: Attempt) -> None:
    launch = attempt.job.launch.model_copy(update={"processes_per_node": 2})
    two = replace(attempt, job=attempt.job.model_copy(update={"launch": launch}))
    for step, rank in ((9, 0), (9, 1), (10, 0), (11, 1)):
        attempt.work.saved(step, rank).touch()
    assert newest_saved(two) == 9
    assert newest_saved(attempt) == 10


def test_local_copies_go_when_they_are_committed(attempt: Attempt) -> None:
    for step in (1, 2, 3):
        save(attempt, step)
    publish(attempt, 2)
    left = sorted(path.name for path in attempt.work.checkpoints.iterdir())
    assert left == ["checkpoint-3", "saved-3-0"]


def test_older_checkpoints_stay_when_the_store_is_slow_to_forget(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(_store: object, _keep: int) -> None:
        raise Unavailable("busy")

    monkeypatch.setattr("sftjob.train.publish.prune_commits", busy)
    save(attempt, 1)
    publish(attempt, 1)
    assert not attempt.work.checkpoint(1).exists()


def test_drain_publishes_what_was_saved_last(attempt: Attempt) -> None:
    publisher = Publisher(attempt, resumed=None)
    save(attempt, 5)
    attempt.work.metrics.write_bytes(b"{}\n")
    publisher.drain()
    assert publisher.committed == 5
    assert attempt.store.get_bytes(keys.metrics(1, 0)) == b"{}\n"


def test_metrics_that_lead_to_a_commit_are_stored_before_it(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(_attempt: Attempt, _step: int) -> None:
        raise Crash

    monkeypatch.setattr("sftjob.train.publish.publish_checkpoint", commit)
    attempt.work.metrics.write_bytes(b"{}\n")
    attempt.work.environment.write_bytes(b"{}")
    save(attempt, 5)
    with pytest.raises(Crash):
        Publisher(attempt, resumed=None).drain()
    assert attempt.store.get_bytes(keys.metrics(1, 0)) == b"{}\n"
    assert attempt.store.get_bytes(keys.environment(1, 0)) == b"{}"


def test_what_it_continues_from_is_not_published_again(attempt: Attempt) -> None:
    publisher = Publisher(attempt, resumed=5)
    attempt.work.saved(5, 0).touch()
    publisher.drain()
    assert list_commits(attempt.store) == []


@pytest.mark.parametrize("last", [True, False])
def test_metrics_may_wait_but_not_for_ever(attempt: Attempt, monkeypatch: pytest.MonkeyPatch, last: bool) -> None:
    def busy(*_: object, **__: object) -> None:
        tries.append(1)
        raise Unavailable("busy")

    tries: list[int] = []
    monkeypatch.setattr(FolderStore, "put_bytes", busy)
    attempt.work.metrics.write_bytes(b"{}\n")
    publisher = Publisher(attempt, resumed=None, metrics_seconds=0)
    while not tries:
        publisher.check()
    if last:
        with pytest.raises(Unavailable):
            publisher.drain()
    else:
        publisher.check()
        monkeypatch.undo()
        publisher.drain()
        assert attempt.store.get_bytes(keys.metrics(1, 0)) == b"{}\n"
