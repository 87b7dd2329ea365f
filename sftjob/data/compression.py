"""gzip and zstd files as the bytes that were put in. A cut or damaged one is told from the end of a whole one."""

import gzip
import io
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from sftjob.data.raw_rows import BrokenFile

Codec = Literal["gzip", "zstd"]
MAGIC: Final[dict[bytes, Codec]] = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
SUFFIXES: Final = (".gz", ".zst", ".zstd")

_BUFFER_BYTES: Final = 2**18


def codec_of(head: bytes) -> Codec | None:
    """Which compression a file begins with."""
    return next((codec for magic, codec in MAGIC.items() if head.startswith(magic)), None)


def open_plain(path: Path) -> BinaryIO:
    """Opens a file for reading; what is compressed is decompressed on the way, in bounded memory.

    The result can seek only where the file is not compressed. Its `read` and `readline` raise

    Raises:
        BrokenFile: the compressed data are cut off or damaged.
        OSError: the file system's own.
    """
    file = path.open("rb")
    try:
        codec = codec_of(file.read(4))
        file.seek(0)
        if codec is None:
            return file
        return io.BufferedReader(_Decompressed(file, codec), _BUFFER_BYTES)
    except BaseException:
        file.close()
        raise


class _Decompressed(io.RawIOBase):
    """The decompressed bytes, with one error class for what may be wrong with the compressed ones."""

    def __init__(self, file: BinaryIO, codec: Codec) -> None:
        super().__init__()
        self._file = file
        self._codec = codec
        self._stream: Any = gzip.GzipFile(fileobj=file) if codec == "gzip" else _zstd(file)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]  # typeshed's Buffer is newer than Python 3.11
        try:
            # What comes before a cut is worth having: `read` would lose it.
            data = self._stream.read1(len(view))
        except (OSError, EOFError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the file system's own
            raise _broken(error, self._codec) from error
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
            self._file.close()
        super().close()


def _zstd(file: BinaryIO) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - Python 3.11 has no zstd; most files need none

    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")


def _broken(error: Exception, codec: Codec) -> BrokenFile:
    """Words of zlib and zstd decide; those not known here mean damage. Their messages quote bytes and are not shown."""
    text = str(error)
    if isinstance(error, EOFError) or text.startswith("Truncated compressed stream"):
        return BrokenFile(f"the {codec} file is cut off", hint="copy it again")
    if text.startswith("Not a gzipped file") or "Unknown frame descriptor" in text:
        return BrokenFile(f"something else follows the {codec} data", hint="copy it again")
    if "too much memory" in text:
        reason = "the zstd file needs a window of more than 128 MiB"
        return BrokenFile(reason, hint="compress it without `--long`")
    return BrokenFile(f"the {codec} data are damaged", hint="copy it again")
