from pathlib import Path

from sftjob.storage import open_store
from sftjob.train.events import EventFiles


def test_closed_files_are_uploaded_once(tmp_path: Path) -> None:
    store, folder = open_store(str(tmp_path / "store")), tmp_path / "tensorboard"
    events = EventFiles(store, folder, attempt=2)
    events.upload()
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    events.upload()
    (folder / "b").write_bytes(b"2")
    (folder / "a").unlink()
    events.upload()
    assert {info.key: store.get_bytes(info.key) for info in store.list()} == {
        "tensorboard/2/a": b"1",
        "tensorboard/2/b": b"2",
    }
