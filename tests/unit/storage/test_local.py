import errno
import os
from pathlib import Path

import pytest

from sftjob.errors import Denied, DiskFull, StorageError
from sftjob.storage.local import placing


def test_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / ("n" * 255)
    with placing(path) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b" and half")

    assert path.read_bytes() == b"half and half"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EROFS, Denied), (errno.EIO, StorageError)],
)
def test_error_leaves_the_old_file(tmp_path: Path, number: int, error: type[Exception]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write() -> None:
        with placing(path) as file:
            file.write(b"new")
            raise OSError(number, "x")

    with pytest.raises(error, match=rf"file: {os.strerror(number)}"):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
