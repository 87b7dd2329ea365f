"""Object stores behind one protocol, and what a run keeps in them. Importing this imports no client library."""

from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from sftjob.errors import ConfigurationError, SpecError, StorageError
from sftjob.storage.attempts import (
    Lease,
    claim_attempt,
    ensure_current,
    join_attempt,
    newest_attempt,
    record_lost,
    release,
)
from sftjob.storage.base import ObjectInfo, ObjectStore, check_key
from sftjob.storage.commits import (
    committed_by,
    list_commits,
    merge_parts,
    prune_commits,
    read_commit,
    restore_latest,
    restore_step,
    write_commit,
)
from sftjob.storage.files import fetch_files, hash_file, list_files, upload_files, upload_folder
from sftjob.storage.folder import FolderStore
from sftjob.storage.probe import probe
from sftjob.storage.retry import Patience

__all__ = [
    "FolderStore",
    "Lease",
    "ObjectInfo",
    "ObjectStore",
    "check_key",
    "claim_attempt",
    "committed_by",
    "ensure_current",
    "fetch_files",
    "hash_file",
    "join_attempt",
    "list_commits",
    "list_files",
    "merge_parts",
    "newest_attempt",
    "open_store",
    "probe",
    "prune_commits",
    "read_commit",
    "record_lost",
    "release",
    "restore_latest",
    "restore_step",
    "upload_files",
    "upload_folder",
    "write_commit",
]

_HINT: Final = "write s3://bucket/prefix, file:///folder or an absolute path"


def open_store(
    uri: str, *, endpoint_url: str | None = None, region: str | None = None, patience: Patience | None = None
) -> ObjectStore:
    """The store behind a URI; nothing is asked of it yet.

    Args:
        uri: `s3://bucket/prefix`, `file:///folder` or an absolute path.
        endpoint_url: of an S3-compatible store; without it AWS, or what the AWS environment variables say.
        region: of the bucket; without it what the AWS environment or configuration says.
        patience: with a store that does not answer, instead of one that lets a minute of errors pass.

    Raises:
        SpecError: no such URI; the field is `storage.uri`.
    """
    parts = urlsplit(uri)
    try:
        if parts.scheme == "s3" and parts.netloc and not (parts.query or parts.fragment):
            # boto3 costs half a second and is not there on every laptop.
            from sftjob.storage.s3 import S3Store  # noqa: PLC0415

            return S3Store.open(
                parts.netloc, parts.path.strip("/"), endpoint_url=endpoint_url, region=region, patience=patience
            )
    except StorageError as error:
        raise SpecError(str(error), field="storage.uri", hint=_HINT) from error
    except ImportError as error:
        raise ConfigurationError(
            f"{uri} needs boto3", field="storage.uri", hint="pip install 'sftjob[s3]', or store in a folder"
        ) from error
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return FolderStore(Path(unquote(parts.path)))
    if uri.startswith("/"):
        return FolderStore(Path(uri))
    raise SpecError(f"{uri!r} names no store", field="storage.uri", hint=_HINT)
