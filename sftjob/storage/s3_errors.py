"""What the answers of S3 and of stores that speak like it mean to us, as data.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from sftjob.errors import ConfigurationError, Denied, Exists, NotFound, SftjobError, StorageError, Unavailable


class Kind(Enum):
    """What a failed request asks of us."""

    DENIED = auto()
    EXPIRED = auto()
    """Denied, unless new credentials can be had."""
    NO_BUCKET = auto()
    ABSENT = auto()
    EXISTS = auto()
    PASSING = auto()
    """Worth another try."""
    MISPLACED = auto()
    """The request went to the wrong region or endpoint."""
    REFUSED = auto()


class Expired(Denied):
    """The temporary credentials have run out; another client may have newer ones."""


@dataclass(frozen=True)
class Place:
    """Where a request went, for messages."""

    endpoint: str
    bucket: str
    key: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


_CLASSES: Final[dict[Kind, type[SftjobError]]] = {
    Kind.DENIED: Denied,
    Kind.EXPIRED: Expired,
    Kind.NO_BUCKET: NotFound,
    Kind.ABSENT: NotFound,
    Kind.EXISTS: Exists,
    Kind.PASSING: Unavailable,
    Kind.MISPLACED: ConfigurationError,
    Kind.REFUSED: StorageError,
}
_KINDS: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.DENIED: (
        "AccessDenied", "AccessDeniedException", "AccountProblem", "AllAccessDisabled", "Forbidden",
        "InvalidSecurity", "MissingSecurityHeader", "NotSignedUp", "RequestExpired", "RequestTimeTooSkewed",
        "Unauthorized", "UnauthorizedAccess",
        "UnrecognizedClientException", "XAdminUserNotFound",
    ),
    # The last three: a key that was replaced. The new one may lie in the file by now, from which a new client reads it.
    Kind.EXPIRED: (
        "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired",
        "InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch",
    ),
    Kind.NO_BUCKET: ("NoSuchBucket",),
    Kind.ABSENT: ("NoSuchKey", "NoSuchUpload", "NotFound"),
    # NotModified: what old MinIO answers to If-None-Match.
    Kind.EXISTS: ("PreconditionFailed", "NotModified"),
    Kind.PASSING: (
        "BadDigest", "BandwidthLimitExceeded", "ConditionalRequestConflict", "IncompleteBody", "InternalError",
        "InternalFailure", "OperationAborted", "RequestThrottled", "RequestTimeout", "RequestTimeoutException",
        "ServiceUnavailable", "SlowDown", "SlowDownRead", "SlowDownWrite", "Throttling", "ThrottlingException",
        "TooManyRequests", "XAmzContentSHA256Mismatch",
    ),
    Kind.MISPLACED: (
        "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "InvalidBucketName", "InvalidRegion",
        "PermanentRedirect", "TemporaryRedirect",
    ),
    # Some of these come with 403 or 5xx, and neither better credentials nor another try helps.
    Kind.REFUSED: (
        "EntityTooLarge", "InsufficientStorage", "InvalidRange", "KeyTooLongError", "NotImplemented",
        "ObjectParentIsFile", "QuotaExceeded", "XMinioStorageFull",
    ),
}  # fmt: skip
_KIND: Final = {code: kind for kind, codes in _KINDS.items() for code in codes}
_STATUS: Final = {
    301: Kind.MISPLACED,
    304: Kind.EXISTS,
    307: Kind.MISPLACED,
    401: Kind.DENIED,
    403: Kind.DENIED,
    404: Kind.ABSENT,
    408: Kind.PASSING,
    412: Kind.EXISTS,
    429: Kind.PASSING,
    501: Kind.REFUSED,
    505: Kind.REFUSED,
    507: Kind.REFUSED,
}

_DENIED_HINTS: Final = {
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID (or the Secret that sets it)",
    "InvalidClientTokenId": "check AWS_ACCESS_KEY_ID (or the Secret that sets it)",
    "XAdminUserNotFound": "check AWS_ACCESS_KEY_ID (or the Secret that sets it)",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY (or the Secret that sets it)",
    "RequestTimeTooSkewed": "set this machine's clock: it differs from the store's by more than 15 minutes",
    "RequestExpired": "set this machine's clock",
    "ExpiredToken": "get new temporary credentials: AWS_SESSION_TOKEN has run out",
    "ExpiredTokenException": "get new temporary credentials: AWS_SESSION_TOKEN has run out",
    "TokenRefreshRequired": "get new temporary credentials",
    "InvalidToken": "check AWS_SESSION_TOKEN, and unset it when the keys are permanent ones",
}
_REFUSED_HINTS: Final = {
    "QuotaExceeded": "free space in the bucket or raise its quota",
    "InsufficientStorage": "free space in the store",
    "XMinioStorageFull": "free space in the store",
    "NotImplemented": "this store lacks what the run needs; use another one",
}
_GRANT: Final = "grant s3:GetObject, s3:PutObject and s3:DeleteObject on its objects and s3:ListBucket on the bucket"


def kind_of(code: str, status: int) -> Kind:
    """Reads an answer. The code decides; HEAD has none (botocore gives the status as text), then the status does.

    A 403 is never an absent object: AWS gives it for absent ones, too, but only where listing is not allowed. Neither
    is a 404 with a word of its own: versitygw tells of an unknown access key that way.
    """
    if status == 404 and not code.isdigit():
        return _KIND.get(code, Kind.REFUSED)
    by_status = _STATUS.get(status, Kind.PASSING if status >= 500 else Kind.REFUSED)
    return _KIND.get(code, by_status)


def to_error(kind: Kind, place: Place, *, code: str, message: str = "") -> SftjobError:
    """The error of a failed request, with the repair.

    Args:
        code: the store's own word, for instance `SlowDown`; a HEAD's is its status.
        message: the store's sentence; may be empty.
    """
    said = f"{code}: {message.rstrip('.')}" if message else code
    reason, field, hint = f"{place.endpoint} refuses: {said}", "", ""
    match kind:
        case Kind.DENIED | Kind.EXPIRED:
            hint = _denied_hint(code)
        case Kind.NO_BUCKET:
            make = f"aws s3 mb s3://{place.bucket} --endpoint-url {place.endpoint}"
            reason, field = f"{place.endpoint} has no bucket {place.bucket!r}", "storage.uri"
            hint = f"correct the name or create it: {make}"
        case Kind.ABSENT:
            reason = f"no such object ({said})"
        case Kind.EXISTS:
            reason = "an object with other content is there already"
        case Kind.PASSING:
            reason = f"{place.endpoint}, bucket {place.bucket}, does not serve the request: {said}"
            hint = "check that the store is up and reachable from here"
        case Kind.MISPLACED:
            field, hint = "storage", "set storage.region to the bucket's region and check storage.endpoint_url"
        case Kind.REFUSED:
            hint = _REFUSED_HINTS.get(code, "")
    return _CLASSES[kind](reason, file=str(place), field=field, hint=hint)


def _denied_hint(code: str) -> str:
    if code == "403":
        return f"{_GRANT}; without s3:ListBucket AWS answers so for an absent object, too"
    return _DENIED_HINTS.get(code, _GRANT)
