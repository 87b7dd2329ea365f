"""Files in parts, several at a time. Each part has its own retries, and the hash is taken from the bytes on the wire.

boto3's own transfers are not used: they verify no multipart download (https://github.com/aws/aws-cli/pull/10180),
retry no error inside a body without starting over (https://github.com/boto/boto3/issues/4111), and its CRT variant
ignores `endpoint_url`.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, TypeVar

from sftjob.errors import NotFound, SftjobError, StorageError
from sftjob.storage.threads import in_order

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

T = TypeVar("T")
THREADS: Final = 4
_MAX_PARTS: Final = 10_000
"""https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html"""
SHA256: Final = "sha256"
"""User metadata on files: whoever uploads one again sees that it is there, and a lost reply to the completion of an
upload in parts is settled by it."""


class Damaged(StorageError):
    """What was received is not what was promised."""


class Connection(Protocol):
    """What `s3.S3Connection` offers here."""

    @property
    def bucket(self) -> str: ...

    @property
    def part_bytes(self) -> int: ...

    def call(self, key: str, request: "Callable[[S3Client], T]", *, retry: bool = True) -> T: ...


def upload(
    connection: Connection,
    key: str,
    path: Path,
    file: BinaryIO,
    *,
    size: int,
    sha256: str,
    on_sent: Callable[[int], None] | None = None,
) -> None:
    """Uploads a file in parts; it becomes visible only after all its bytes had the promised hash.

    Args:
        key: full key, the store's prefix included.
        path: for the message.
        on_sent: is given the bytes of each part that has arrived.

    Raises:
        StorageError: other bytes than promised were read.
    """
    bucket = connection.bucket
    upload_id = connection.call(key, partial(_create, bucket=bucket, key=key, sha256=sha256))
    try:
        part_bytes = max(connection.part_bytes, -(-size // _MAX_PARTS))
        parts, found = _send(connection, key, file, upload_id, part_bytes=part_bytes, on_sent=on_sent)
        if found != sha256:
            raise StorageError(f"the file changed: its sha256 is {found}, not {sha256}", file=str(path))
        _complete(connection, key, upload_id, parts, size=size, sha256=sha256)
    except BaseException:
        # Invisible parts cost money until somebody removes them; a killed process leaves it to abort_stale_uploads.
        with suppress(SftjobError):
            connection.call(key, partial(_abort, bucket=bucket, key=key, upload_id=upload_id), retry=False)
        raise


def download(connection: Connection, key: str, file: BinaryIO, *, size: int, sha256: str | None) -> None:
    """Writes an object to `file`.

    Raises:
        Damaged: what came has another size or hash; another try may help.
        StorageError: the object has another size.
    """
    digest = hashlib.sha256()
    received = 0
    step = connection.part_bytes
    starts = range(0, max(size, 1), step)
    whole = len(starts) == 1

    def fetch(start: int) -> bytes:
        span = None if whole else (start, min(start + step, size))
        return connection.call(key, lambda s3: _read(s3, connection.bucket, key, span, size))

    for chunk in in_order(fetch, starts, threads=THREADS):
        file.write(chunk)
        digest.update(chunk)
        received += len(chunk)
    found = digest.hexdigest()
    name = f"s3://{connection.bucket}/{key}"
    if received != size:
        raise Damaged(f"{received} bytes came instead of {size}", file=name)
    if sha256 not in (None, found):
        raise Damaged(f"has sha256 {found} instead of {sha256}", file=name)


def abort_all(connection: Connection, prefix: str) -> int:
    """Aborts every unfinished upload below a prefix; returns how many there were."""
    bucket = connection.bucket
    count = 0
    # What is aborted is gone from the next answer, so the first page is always the next one.
    while True:
        page = connection.call(prefix, lambda s3: s3.list_multipart_uploads(Bucket=bucket, Prefix=prefix))
        for item in page.get("Uploads", []):
            with suppress(NotFound):
                connection.call(
                    item["Key"], partial(_abort, bucket=bucket, key=item["Key"], upload_id=item["UploadId"])
                )
            count += 1
        if not page.get("IsTruncated"):
            return count


def _create(s3: "S3Client", *, bucket: str, key: str, sha256: str) -> str:
    # Where boto3 adds a checksum to every part, the upload must have been announced with it.
    if s3.meta.config.request_checksum_calculation == "when_supported":  # type: ignore[attr-defined]
        answer = s3.create_multipart_upload(
            Bucket=bucket, Key=key, Metadata={SHA256: sha256}, ChecksumAlgorithm="CRC32"
        )
    else:
        answer = s3.create_multipart_upload(Bucket=bucket, Key=key, Metadata={SHA256: sha256})
    return answer["UploadId"]


def _send(
    connection: Connection,
    key: str,
    file: BinaryIO,
    upload_id: str,
    *,
    part_bytes: int,
    on_sent: Callable[[int], None] | None,
) -> "tuple[list[CompletedPartTypeDef], str]":
    digest = hashlib.sha256()

    def chunks() -> Iterator[tuple[int, bytes]]:
        for number, chunk in enumerate(iter(lambda: file.read(part_bytes), b""), start=1):
            digest.update(chunk)
            yield number, chunk

    def send(part: tuple[int, bytes]) -> "tuple[CompletedPartTypeDef, int]":
        number, chunk = part
        answer = connection.call(
            key,
            lambda s3: s3.upload_part(
                Bucket=connection.bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=chunk
            ),
        )
        done: CompletedPartTypeDef = {"PartNumber": number, "ETag": answer["ETag"]}
        checked: CompletedPartTypeDef = {"ChecksumCRC32": answer["ChecksumCRC32"]} if "ChecksumCRC32" in answer else {}
        return {**done, **checked}, len(chunk)

    parts: list[CompletedPartTypeDef] = []
    for part, sent in in_order(send, chunks(), threads=THREADS):
        parts.append(part)
        if on_sent:
            on_sent(sent)
    return parts, digest.hexdigest()


def _complete(
    connection: Connection,
    key: str,
    upload_id: str,
    parts: "list[CompletedPartTypeDef]",
    *,
    size: int,
    sha256: str,
) -> None:
    bucket = connection.bucket
    # An upload that is gone may have been completed by a try whose reply was lost.
    with suppress(NotFound):
        connection.call(
            key,
            lambda s3: s3.complete_multipart_upload(
                Bucket=bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}
            ),
        )
    head = connection.call(key, lambda s3: s3.head_object(Bucket=bucket, Key=key))
    if head["ContentLength"] != size or head["Metadata"].get(SHA256, sha256) != sha256:
        raise StorageError(
            f"the store keeps {head['ContentLength']} bytes of another upload instead of {size}", file=key
        )


def _read(s3: "S3Client", bucket: str, key: str, span: tuple[int, int] | None, size: int) -> bytes:
    if span is None:
        answer = s3.get_object(Bucket=bucket, Key=key)
        total = answer["ContentLength"]
    else:
        answer = s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={span[0]}-{span[1] - 1}")
        total = int(answer["ContentRange"].rpartition("/")[2])
    # The body's own context manager gives the raw stream, which checks no length.
    with closing(answer["Body"]) as body:
        if total != size:
            raise StorageError(f"has {total} bytes instead of {size}", file=f"s3://{bucket}/{key}")
        return body.read()


def _abort(s3: "S3Client", *, bucket: str, key: str, upload_id: str) -> None:
    s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
