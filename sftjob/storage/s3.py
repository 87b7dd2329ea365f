"""S3 and stores that speak its protocol. The only module that imports boto3.

One loop retries, ours: botocore's knows no deadline, shares one quota between all threads, and ends before the body is
read. Integrity is ours, too: every file carries its own SHA-256, so the optional checksums, which other stores than AWS
often refuse (https://github.com/boto/boto3/issues/4392), are left to AWS.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.exceptions as boto_errors
from botocore.config import Config
from botocore.parsers import ResponseParserError

from sftjob.errors import ConfigurationError, Denied, Exists, NotFound, SftjobError, SpecError, StorageError
from sftjob.storage import s3_parts
from sftjob.storage.base import ObjectInfo, check_key
from sftjob.storage.local import local_errors, placing
from sftjob.storage.retry import Patience
from sftjob.storage.s3_errors import Expired, Kind, Place, kind_of, to_error

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

T = TypeVar("T")
PART_BYTES: Final = 16 * 2**20
_CONNECT_SECONDS: Final = 10
_READ_SECONDS: Final = 40
_NO_CREDENTIALS: Final = (
    boto_errors.NoCredentialsError,
    boto_errors.PartialCredentialsError,
    boto_errors.CredentialRetrievalError,
    boto_errors.NoAuthTokenError,
    boto_errors.TokenRetrievalError,
    boto_errors.MetadataRetrievalError,
    boto_errors.ProfileNotFound,
    boto_errors.SSOError,
    boto_errors.LoginError,
)
_PASSING: Final = (
    boto_errors.ConnectionError,
    boto_errors.HTTPClientError,
    boto_errors.IncompleteReadError,
    boto_errors.ChecksumError,
    boto_errors.FlexibleChecksumError,
    ResponseParserError,
)
_log = logging.getLogger(__name__)


class S3Connection:
    """One bucket of one endpoint: makes the client when it is first needed, retries, and maps errors."""

    def __init__(
        self, bucket: str, *, endpoint_url: str | None, region: str | None, patience: Patience, part_bytes: int
    ) -> None:
        self.bucket = bucket
        self.part_bytes = part_bytes
        self._endpoint_url = endpoint_url
        self._region = region
        self._patience = patience
        self._lock = threading.Lock()
        self._made: S3Client | None = None

    def call(self, key: str, request: "Callable[[S3Client], T]", *, retry: bool = True) -> T:
        """Runs one request, the reading of its body included, until it succeeds, is refused or the deadline passes."""
        return self._patience.run(lambda: self._try(key, request)) if retry else self._try(key, request)

    def _try(self, key: str, request: "Callable[[S3Client], T]") -> T:
        client = None
        try:
            with self._mapped(key):
                client = self._client()
                return request(client)
        except Expired:
            # Credentials from a file or a token that others renew: a new client reads them again.
            with self._mapped(key):
                return request(self._client(instead_of=client))

    def _client(self, *, instead_of: "S3Client | None" = None) -> "S3Client":
        with self._lock:
            if self._made is None or self._made is instead_of:
                self._made = _new_client(self._endpoint_url, self._region)
            return self._made

    @contextmanager
    def _mapped(self, key: str) -> Iterator[None]:
        try:
            yield
        except boto_errors.ClientError as error:
            answer = error.response.get("Error", {})
            code = str(answer.get("Code", "unknown"))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            message = _one_line(str(answer.get("Message", "")))
            raise to_error(kind_of(code, status), self._place(key), code=code, message=message) from error
        except (boto_errors.BotoCoreError, ResponseParserError) as error:
            raise _of_client(error, self._place(key)) from error

    def _place(self, key: str) -> Place:
        endpoint = self._endpoint_url or (self._made.meta.endpoint_url if self._made else "S3")
        return Place(endpoint, self.bucket, key)


class S3Store:
    """Objects below a prefix of a bucket."""

    def __init__(self, connection: S3Connection, prefix: str = "") -> None:
        self._connection = connection
        self._prefix = f"{prefix}/" if prefix else ""

    @classmethod
    def open(
        cls,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        patience: Patience | None = None,
        part_bytes: int = PART_BYTES,
    ) -> "S3Store":
        """Names a store and asks nothing of it. `part_bytes`: files larger than this travel in parts of this size."""
        if prefix:
            check_key(prefix)
        connection = S3Connection(
            bucket, endpoint_url=endpoint_url, region=region, patience=patience or Patience(), part_bytes=part_bytes
        )
        return cls(connection, prefix)

    @property
    def uri(self) -> str:
        return f"s3://{self._connection.bucket}/{self._prefix}".rstrip("/")

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        full = self._full(key)
        bucket = self._connection.bucket
        if not if_absent:
            self._connection.call(full, lambda s3: s3.put_object(Bucket=bucket, Key=full, Body=data))
            return
        try:
            self._connection.call(full, lambda s3: s3.put_object(Bucket=bucket, Key=full, Body=data, IfNoneMatch="*"))
        except Exists:
            # Perhaps an earlier try of ours whose reply was lost: its content tells.
            if self._content(full, len(data)) != data:
                raise

    def put_file(self, key: str, path: Path, *, sha256: str, on_sent: Callable[[int], None] | None = None) -> None:
        full = self._full(key)
        bucket = self._connection.bucket
        with local_errors(path), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > self._connection.part_bytes:
                return s3_parts.upload(self._connection, full, path, file, size=size, sha256=sha256, on_sent=on_sent)
            data = file.read()
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise StorageError(f"the file changed: its sha256 is {found}, not {sha256}", file=str(path))
        told = {s3_parts.SHA256: sha256}
        self._connection.call(full, lambda s3: s3.put_object(Bucket=bucket, Key=full, Body=data, Metadata=told))
        if on_sent:
            on_sent(size)
        return None

    def get_bytes(self, key: str, *, max_bytes: int = 16 * 2**20) -> bytes:
        full = self._full(key)
        data = self._content(full, max_bytes)
        if data is None:
            raise StorageError(f"more than the {max_bytes} bytes expected here", file=self._name(full))
        return data

    def get_file(self, key: str, path: Path, *, size: int, sha256: str | None) -> None:
        full = self._full(key)
        try:
            self._download(full, path, size, sha256)
        except s3_parts.Damaged:
            # Once more: the wire may have been at fault, not the store.
            self._download(full, path, size, sha256)

    def head(self, key: str) -> ObjectInfo:
        full = self._full(key)
        answer = self._connection.call(full, lambda s3: s3.head_object(Bucket=self._connection.bucket, Key=full))
        return ObjectInfo(key=key, size=answer["ContentLength"], sha256=answer["Metadata"].get(s3_parts.SHA256))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        # Sorted here: not every store gives its pages in order.
        return iter(sorted(self._listed(self._prefix + prefix), key=lambda info: info.key))

    def delete(self, key: str) -> None:
        full = self._full(key)
        # AWS answers as if the absent object had been there; not every store does.
        with suppress(NotFound):
            self._connection.call(full, lambda s3: s3.delete_object(Bucket=self._connection.bucket, Key=full))

    def at(self, prefix: str) -> "S3Store":
        return S3Store(self._connection, self._full(prefix.rstrip("/")))

    def abort_stale_uploads(self) -> int:
        try:
            return s3_parts.abort_all(self._connection, self._prefix)
        except (Denied, StorageError) as error:
            _log.warning("unfinished uploads stay (a lifecycle rule of the bucket can remove them): %s", error)
            return 0

    def _full(self, key: str) -> str:
        return check_key(self._prefix + check_key(key))

    def _name(self, full: str) -> str:
        return f"s3://{self._connection.bucket}/{full}"

    def _content(self, full: str, max_bytes: int) -> bytes | None:
        """None where the object is larger."""

        def read(s3: "S3Client") -> bytes | None:
            answer = s3.get_object(Bucket=self._connection.bucket, Key=full)
            # The body's own context manager gives the raw stream, which checks no length.
            with closing(answer["Body"]) as body:
                return body.read() if answer["ContentLength"] <= max_bytes else None

        return self._connection.call(full, read)

    def _download(self, full: str, path: Path, size: int, sha256: str | None) -> None:
        with placing(path) as file:
            s3_parts.download(self._connection, full, file, size=size, sha256=sha256)

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        bucket = self._connection.bucket
        token: dict[str, str] = {}
        while True:
            page = self._connection.call(prefix, partial(_page, bucket=bucket, prefix=prefix, token=token))
            for item in page.get("Contents", []):
                # Consoles make empty objects that end in a slash to show folders.
                if not item["Key"].endswith("/"):
                    yield ObjectInfo(
                        item["Key"].removeprefix(self._prefix),
                        item["Size"],
                        version=item.get("ETag", ""),
                        modified=item.get("LastModified"),
                    )
            if not page.get("NextContinuationToken"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}


def _page(s3: "S3Client", *, bucket: str, prefix: str, token: dict[str, str]) -> "ListObjectsV2OutputTypeDef":
    return s3.list_objects_v2(Bucket=bucket, Prefix=prefix, **token)  # type: ignore[arg-type]


def _new_client(endpoint_url: str | None, region: str | None) -> "S3Client":
    try:
        return boto3.session.Session().client(
            "s3", endpoint_url=endpoint_url, region_name=region, config=_config(endpoint_url)
        )
    except ValueError as error:
        raise SpecError(
            _one_line(str(error)), field="storage.endpoint_url", hint="write http(s)://host:port"
        ) from error


def _config(endpoint_url: str | None) -> Config:
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS,
        max_pool_connections=16,
        retries={"total_max_attempts": 1, "mode": "standard"},
        user_agent_extra="sftjob",
    )
    endpoint = endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    host = urlsplit(endpoint or "").hostname or ""
    if not endpoint or host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return config
    return config.merge(
        Config(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
        )
    )


def _of_client(error: Exception, place: Place) -> SftjobError:
    """Errors that botocore found itself, before or while the store answered."""
    said = _one_line(str(error))
    if isinstance(error, _NO_CREDENTIALS):
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the pod a credentials Secret"
        return Denied(f"no usable credentials: {said}", file=str(place), hint=hint)
    if any(sign in said for sign in ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER")):
        hint = "name its CA in AWS_CA_BUNDLE and check http or https in storage.endpoint_url"
        return ConfigurationError(f"no trusted connection to {place.endpoint}: {said}", field="storage", hint=hint)
    if isinstance(error, _PASSING):
        return to_error(Kind.PASSING, place, code=type(error).__name__, message=said)
    return ConfigurationError(said, field="storage", hint="check storage.uri, its region and the AWS configuration")


def _one_line(text: str) -> str:
    return " ".join(text.split())
