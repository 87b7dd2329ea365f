import pytest

from sftjob.errors import ConfigurationError, Denied, Exists, NotFound, SftjobError, StorageError, Unavailable
from sftjob.storage.s3_errors import Expired, Kind, Place, kind_of, to_error

PLACE = Place("http://store:9000", "runs", "job/commits/1.json")

# From the list and the error pages of AWS, MinIO, Ceph and versitygw: code, status, class.
ANSWERS: list[tuple[str, int, type[SftjobError]]] = [
    ("403", 403, Denied),
    ("401", 401, Denied),
    ("AccessDenied", 403, Denied),
    ("RequestTimeTooSkewed", 403, Denied),
    ("AllAccessDisabled", 403, Denied),
    ("SomeNewRefusal", 403, Denied),
    ("ExpiredToken", 400, Expired),
    ("InvalidToken", 400, Expired),
    ("XAdminUserNotFound", 404, Denied),
    ("SomethingElseNotFound", 404, StorageError),
    ("NoSuchBucket", 404, NotFound),
    ("NoSuchKey", 404, NotFound),
    ("404", 404, NotFound),
    ("PreconditionFailed", 412, Exists),
    ("412", 412, Exists),
    ("NotModified", 304, Exists),
    ("304", 304, Exists),
    ("ConditionalRequestConflict", 409, Unavailable),
    ("OperationAborted", 409, Unavailable),
    ("InternalError", 500, Unavailable),
    ("500", 500, Unavailable),
    ("502", 502, Unavailable),
    ("SlowDown", 503, Unavailable),
    ("ServiceUnavailable", 503, Unavailable),
    ("504", 504, Unavailable),
    ("429", 429, Unavailable),
    ("TooManyRequests", 429, Unavailable),
    ("RequestTimeout", 400, Unavailable),
    ("BadDigest", 400, Unavailable),
    ("PermanentRedirect", 301, ConfigurationError),
    ("AuthorizationHeaderMalformed", 400, ConfigurationError),
    ("NotImplemented", 501, StorageError),
    ("501", 501, StorageError),
    ("QuotaExceeded", 403, StorageError),
    ("XMinioStorageFull", 507, StorageError),
    ("InvalidRange", 416, StorageError),
    ("EntityTooLarge", 400, StorageError),
    ("WhatIsThis", 400, StorageError),
]


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch"])
def test_a_key_that_was_replaced_is_read_again(code: str) -> None:
    """A mounted Secret changes in the pod; a client that is made anew reads it."""
    error = to_error(kind_of(code, 403), PLACE, code=code, message="a sentence")

    assert isinstance(error, Expired)
    assert error.exit_code == 77


@pytest.mark.parametrize(("code", "status", "expected"), ANSWERS)
def test_answers(code: str, status: int, expected: type[SftjobError]) -> None:
    error = to_error(kind_of(code, status), PLACE, code=code, message="a sentence")

    assert type(error) is expected
    assert "\n" not in str(error)
    assert "s3://runs/job/commits/1.json" in str(error)


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_an_answer(kind: Kind) -> None:
    assert isinstance(to_error(kind, PLACE, code="Code"), SftjobError)
    assert any(kind_of(code, status) is kind for code, status, _ in ANSWERS)


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_has_a_kind(status: int) -> None:
    kind = kind_of(str(status), status)

    assert (kind is Kind.ABSENT) == (status == 404)
    assert kind is not Kind.EXPIRED


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("RequestTimeTooSkewed", 403, "clock"),
        ("InvalidAccessKeyId", 403, "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", 403, "AWS_SECRET_ACCESS_KEY"),
        ("ExpiredToken", 400, "AWS_SESSION_TOKEN"),
        ("AccessDenied", 403, "s3:PutObject"),
        ("403", 403, "without s3:ListBucket AWS answers so for an absent object, too"),
        ("NoSuchBucket", 404, "aws s3 mb s3://runs --endpoint-url http://store:9000"),
        ("SlowDown", 503, "http://store:9000, bucket runs, .*SlowDown"),
        ("PermanentRedirect", 301, r"storage\.region"),
    ],
)
def test_repairs(code: str, status: int, words: str) -> None:
    with pytest.raises(SftjobError, match=words):
        raise to_error(kind_of(code, status), PLACE, code=code)
