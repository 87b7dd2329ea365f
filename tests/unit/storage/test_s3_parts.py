# ruff: noqa: N803 - the arguments are called as boto3 calls them
"""What no server at hand does: pages of unfinished uploads, and a store that loses the end of an upload."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sftjob.errors import StorageError
from sftjob.storage import s3_parts
from tests.store_contract import sha256


@dataclass
class Client:
    """As much of a boto3 client as is asked for; `kept` of the bytes that are sent stay."""

    kept: int = 100
    uploads: list[str] = field(default_factory=list)
    parts: dict[int, bytes] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    completed: list[dict[str, Any]] = field(default_factory=list)
    meta: Any = field(
        default_factory=lambda: SimpleNamespace(config=SimpleNamespace(request_checksum_calculation="when_required"))
    )

    def create_multipart_upload(self, *, Metadata: dict[str, str], **_: Any) -> dict[str, Any]:
        self.metadata = Metadata
        self.uploads.append("1")
        return {"UploadId": "1"}

    def upload_part(self, *, PartNumber: int, Body: bytes, **_: Any) -> dict[str, Any]:
        self.parts[PartNumber] = Body
        return {"ETag": f"tag {PartNumber}"}

    def complete_multipart_upload(self, *, MultipartUpload: dict[str, Any], **_: Any) -> None:
        self.completed = MultipartUpload["Parts"]

    def head_object(self, **_: Any) -> dict[str, Any]:
        size = sum(len(part) for part in self.parts.values())
        return {"ContentLength": min(size, self.kept), "Metadata": self.metadata}

    def list_multipart_uploads(self, **_: Any) -> dict[str, Any]:
        page = [{"Key": "k", "UploadId": upload} for upload in self.uploads[:2]]
        return {"Uploads": page, "IsTruncated": len(self.uploads) > 2}

    def abort_multipart_upload(self, *, UploadId: str, **_: Any) -> None:
        self.uploads.remove(UploadId)


@dataclass
class Connection:
    client: Client
    bucket: str = "bucket"
    part_bytes: int = 4

    def call(self, key: str, request: Any, *, retry: bool = True) -> Any:
        return request(self.client)


def _upload(client: Client, data: bytes) -> None:
    s3_parts.upload(Connection(client), "k", Path("in"), io.BytesIO(data), size=len(data), sha256=sha256(data))


def test_parts_in_order() -> None:
    client = Client()

    _upload(client, b"0123456789")

    assert client.parts == {1: b"0123", 2: b"4567", 3: b"89"}
    assert client.completed == [{"PartNumber": number, "ETag": f"tag {number}"} for number in (1, 2, 3)]


def test_parts_grow_before_their_number_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_parts, "_MAX_PARTS", 2)
    client = Client()

    _upload(client, b"0123456789")

    assert client.parts == {1: b"01234", 2: b"56789"}


def test_store_that_keeps_less(tmp_path: Path) -> None:
    client = Client(kept=9)

    with pytest.raises(StorageError, match="keeps 9 bytes of another upload instead of 10"):
        _upload(client, b"0123456789")


def test_every_page_of_unfinished_uploads() -> None:
    client = Client(uploads=["1", "2", "3", "4", "5"])

    assert s3_parts.abort_all(Connection(client), "") == 5
    assert client.uploads == []
