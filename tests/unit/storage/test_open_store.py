import subprocess
import sys
from pathlib import Path

import pytest

from sftjob.errors import ConfigurationError, SpecError
from sftjob.storage import open_store


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/data/my runs", "file:///data/my%20runs"),
        ("file:///data/my%20runs/", "file:///data/my%20runs"),
        ("file://localhost/data", "file:///data"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
    ],
)
def test_uris(uri: str, expected: str) -> None:
    assert open_store(uri).uri == expected


@pytest.mark.parametrize(
    "uri",
    [
        *("", "runs", "./runs", "~/runs", "s3://", "s3:///key", "s3:bucket", "gs://bucket", "http://host/x"),
        *("file://host/x", "s3://bucket/a//b", "s3://bucket/../b", "s3://bucket/a?versionId=1"),
    ],
)
def test_other_uris(uri: str) -> None:
    with pytest.raises(SpecError, match=r"storage\.uri.*absolute path"):
        open_store(uri)


def test_without_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sftjob.storage.s3", raising=False)
    monkeypatch.setitem(sys.modules, "boto3", None)

    with pytest.raises(ConfigurationError, match=r"boto3.*sftjob\[s3\]"):
        open_store("s3://bucket")


def test_imports_no_client_library() -> None:
    code = """
import sys, sftjob.storage
print([name for name in sys.modules if name.partition(".")[0] in ("boto3", "botocore", "torch")])
"""
    folder = Path(__file__).parents[3]

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)

    assert done.stdout.strip() == "[]"
