"""The contract against real servers, and what only S3 has: buckets, credentials, pages, uploads in parts."""

import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config

from sftjob.errors import ConfigurationError, Denied, NotFound, SpecError
from sftjob.storage import open_store, probe, s3
from sftjob.storage.retry import Patience
from sftjob.storage.s3 import S3Store
from tests.s3_server import S3Server
from tests.store_contract import StoreContract, listed, sha256

pytestmark = pytest.mark.storage
PART_BYTES = 5 * 2**20
"""The smallest part that S3 takes: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html"""


@pytest.fixture
def store(each_s3_server: S3Server) -> S3Store:
    return S3Store.open(each_s3_server.bucket, "team/runs", part_bytes=PART_BYTES)


class TestS3Store(StoreContract):
    pass


def test_prefix_is_a_folder(store: S3Store, each_s3_server: S3Server) -> None:
    store.put_bytes("a", b"x")
    client = each_s3_server.client()
    client.put_object(Bucket=each_s3_server.bucket, Key="team/runs-of-others/a", Body=b"y")
    client.put_object(Bucket=each_s3_server.bucket, Key="team/runs/folder/", Body=b"")

    assert listed(store) == ["a"]
    assert listed(S3Store.open(each_s3_server.bucket)) == ["team/runs-of-others/a", "team/runs/a"]


def test_all_pages_are_listed(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number:02d}" for number in range(7)]
    for name in names:
        store.put_bytes(name, b"x")
    pages: list[Any] = []

    def page(client: Any, *, bucket: str, prefix: str, token: dict[str, str]) -> Any:
        pages.append(client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=3, **token))
        return pages[-1]

    monkeypatch.setattr(s3, "_page", page)

    assert listed(store) == names
    assert len(pages) == 3


def test_uploads_of_killed_writers_are_aborted(store: S3Store, each_s3_server: S3Server) -> None:
    client = each_s3_server.client()
    start = partial(client.create_multipart_upload, Bucket=each_s3_server.bucket)
    start(Key="team/runs/checkpoints/1")
    start(Key="team/runs/checkpoints/1")
    start(Key="team/runs/checkpoints/2")
    start(Key="team/other/checkpoints/2")

    assert store.abort_stale_uploads() == 3

    left = client.list_multipart_uploads(Bucket=each_s3_server.bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["team/other/checkpoints/2"]


def test_open_store_takes_the_environment(each_s3_server: S3Server) -> None:
    store = open_store(f"s3://{each_s3_server.bucket}/runs")
    store.put_bytes("a", b"x")

    assert listed(S3Store.open(each_s3_server.bucket)) == ["runs/a"]


def test_endpoint_from_the_spec(each_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    store = open_store(f"s3://{each_s3_server.bucket}", endpoint_url=each_s3_server.endpoint_url, region="us-east-1")

    probe(store, single_writer=False)


def test_missing_bucket(each_s3_server: S3Server) -> None:
    store = open_store("s3://no-such-bucket/runs")
    repair = f"storage.uri: .*no bucket 'no-such-bucket'.*aws s3 mb s3://no-such-bucket .*{each_s3_server.endpoint_url}"

    for use in (
        lambda: probe(store, single_writer=False),
        lambda: store.put_bytes("a", b"x"),
        lambda: store.get_bytes("a"),
        store.list,
    ):
        with pytest.raises(NotFound, match=repair):
            use()


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("AWS_ACCESS_KEY_ID", "somebody-else", "check AWS_ACCESS_KEY_ID"),
        ("AWS_SECRET_ACCESS_KEY", "guessed", "SignatureDoesNotMatch.*AWS_SECRET_ACCESS_KEY"),
        ("AWS_ACCESS_KEY_ID", None, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_wrong_credentials(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, variable: str, value: str | None, words: str
) -> None:
    if value and "moto" in s3_server.kind:
        pytest.skip("moto believes every credential, and versitygw is not on PATH")
    monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
    if value is None:
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = open_store(f"s3://{s3_server.bucket}/runs")

    with pytest.raises(Denied, match=words):
        probe(store, single_writer=False)
    with pytest.raises(Denied):
        store.get_bytes("absent")


def test_profile_that_is_not_there(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    with pytest.raises(Denied, match="nobody"):
        probe(open_store(f"s3://{s3_server.bucket}"), single_writer=True)


def test_endpoint_that_is_no_address() -> None:
    store = open_store("s3://bucket", endpoint_url="store:9000")

    with pytest.raises(SpecError, match=r"storage\.endpoint_url.*http"):
        store.get_bytes("a")


def test_https_to_a_server_without_it(s3_server: S3Server) -> None:
    store = open_store(f"s3://{s3_server.bucket}", endpoint_url=s3_server.endpoint_url.replace("http:", "https:"))

    with pytest.raises(ConfigurationError, match=r"no trusted connection.*http or https"):
        store.get_bytes("a")


def test_bucket_name_that_is_none(s3_server: S3Server) -> None:
    with pytest.raises(ConfigurationError, match=r"storage\.uri"):
        open_store("s3://not,a,bucket").get_bytes("a")


@pytest.mark.parametrize("endpoint", ["https://s3.eu-central-1.amazonaws.com", None])
def test_aws_keeps_its_own_checksums(endpoint: str | None) -> None:
    assert s3._config(endpoint).request_checksum_calculation is None


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_other_stores_get_no_optional_checksums(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "http://minio:9000")

    assert s3._config(None).request_checksum_calculation == "when_required"
    assert s3._config("http://minio:9000").s3 == {"addressing_style": "path"}


def test_one_client_for_all_threads(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made: list[Any] = []
    new_client = s3._new_client
    monkeypatch.setattr(s3, "_new_client", lambda *where: made.append(new_client(*where)) or made[-1])
    store = S3Store.open(s3_server.bucket, patience=Patience(deadline_seconds=0))
    threads = [threading.Thread(target=store.at(f"t{number}").put_bytes, args=("a", b"x")) for number in range(8)]
    assert made == []

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 1
    assert len(listed(store)) == 8


def test_parts_carry_the_hash(store: S3Store, each_s3_server: S3Server, tmp_path: Path) -> None:
    data = bytes(PART_BYTES + 1)
    (tmp_path / "in").write_bytes(data)

    store.put_file("big", tmp_path / "in", sha256=sha256(data))

    head = each_s3_server.client().head_object(Bucket=each_s3_server.bucket, Key="team/runs/big")
    assert head["Metadata"]["sha256"] == sha256(data)
    assert head["ETag"].strip('"').endswith("-2")


def test_with_the_checksums_that_aws_gets(store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_config", lambda _: Config(s3={"addressing_style": "path"}))
    data = bytes(PART_BYTES + 1)
    (tmp_path / "in").write_bytes(data)

    store.put_bytes("small", b"x", if_absent=True)
    store.put_file("big", tmp_path / "in", sha256=sha256(data))
    store.get_file("big", tmp_path / "out", size=len(data), sha256=sha256(data))

    assert store.get_bytes("small") == b"x"
