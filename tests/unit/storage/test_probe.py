from pathlib import Path
from threading import Barrier

import pytest

from sftjob.contract import ExitCode
from sftjob.errors import ConfigurationError, Denied, Exists, StorageError
from sftjob.storage import FolderStore, probe
from tests.store_contract import listed


class IgnoresConditions(FolderStore):
    """As Ceph's gateway was seen to do."""

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        super().put_bytes(key, data)


class LooksThenWrites(FolderStore):
    """Refuses what is there, but not in one step: all that look at once win."""

    looked = Barrier(8)

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        if key in listed(self):
            raise Exists("there", file=key)
        self.looked.wait(timeout=10)
        super().put_bytes(key, data)


class RefusesButReplaces(FolderStore):
    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        try:
            super().put_bytes(key, data, if_absent=if_absent)
        finally:
            super().put_bytes(key, data)


class Garbles(FolderStore):
    def get_bytes(self, key: str, *, max_bytes: int = 16 * 2**20) -> bytes:
        return super().get_bytes(key, max_bytes=max_bytes) + b"\n"


class Denies(FolderStore):
    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        raise Denied("read-only", file=key)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (IgnoresConditions, "8 of 8 writers created"),
        (LooksThenWrites, "8 of 8 writers created"),
        (RefusesButReplaces, "a refused write replaced"),
    ],
)
def test_store_without_conditional_writes(tmp_path: Path, kind: type[FolderStore], what: str) -> None:
    store = kind(tmp_path)

    with pytest.raises(ConfigurationError, match=rf"storage\.single_writer: .*{what}.*single_writer: true") as error:
        probe(store, single_writer=False)
    assert error.value.exit_code == ExitCode.CONFIGURATION
    assert listed(store) == []
    probe(IgnoresConditions(tmp_path), single_writer=True)


def test_store_that_changes_bytes(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="other bytes"):
        probe(Garbles(tmp_path), single_writer=True)


@pytest.mark.parametrize("single_writer", [False, True])
def test_refusal_stays_one(tmp_path: Path, single_writer: bool) -> None:
    with pytest.raises(Denied, match="probe/"):
        probe(Denies(tmp_path), single_writer=single_writer)
