from pathlib import Path

import pytest

from sftjob.contract import keys
from sftjob.errors import Unavailable
from sftjob.storage import FolderStore
from sftjob.train.segments import Segments


class LosesReplies(FolderStore):
    """Every put arrives; the first reply does not."""

    lost = 0

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        super().put_bytes(key, data, if_absent=if_absent)
        self.lost += 1
        if self.lost == 1:
            raise Unavailable("no reply")


def uploaded(store: FolderStore) -> list[bytes]:
    return [store.get_bytes(info.key) for info in store.list(keys.METRICS)]


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_segments_hold_whole_lines_once_each_in_order(tmp_path: Path) -> None:
    store, path = FolderStore(tmp_path / "store"), tmp_path / "metrics.jsonl"
    segments = Segments(store, path, attempt=3)
    segments.upload()
    append(path, "1\n2\n3")
    segments.upload()
    segments.upload()
    append(path, "3\n4\n")
    segments.upload()
    append(path, "a line that a crash has c")
    segments.upload()
    assert uploaded(store) == [b"1\n2\n", b"33\n4\n"]
    assert [info.key for info in store.list()] == [keys.metrics(3, 0), keys.metrics(3, 1)]


def test_a_lost_reply_neither_repeats_nor_loses_lines(tmp_path: Path) -> None:
    store, path = LosesReplies(tmp_path / "store"), tmp_path / "metrics.jsonl"
    segments = Segments(store, path, attempt=1)
    append(path, "1\n")
    with pytest.raises(Unavailable):
        segments.upload()
    append(path, "2\n")
    segments.upload()
    segments.upload()
    assert uploaded(store) == [b"1\n", b"2\n"]
