"""The store of a job as this machine reaches it, which may be another address than the one that pods use."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from sftjob.errors import SpecError, Unavailable
from sftjob.spec import JobSpec, Profile, Storage
from sftjob.storage import ObjectStore, open_store
from sftjob.storage.retry import Patience

_FIRST_ANSWER: Final = Patience(deadline_seconds=12)
"""Somebody sits and waits, and a wrong address is likelier here than a store that is down."""
_ELSEWHERE: Final = (
    "check that it is up; if pods reach it under another address than this machine, give this machine's: "
    "--endpoint-url URL, or `storage.external_endpoint_url` in the profile"
)


def open_root(spec: JobSpec, profile: Profile, *, endpoint_url: str | None = None) -> ObjectStore:
    """The store at `<storage.uri>`, where the spec and the profile say that it is; it has answered.

    Args:
        spec: names the store, or leaves it to the profile.
        profile: the platform's half.
        endpoint_url: of the store as this machine reaches it; it goes before everything that is written.

    Raises:
        SpecError: neither of them names a store.
        Denied, NotFound, Unavailable: it refuses, has no such bucket, or does not answer.
    """
    uri = spec.storage.uri or profile.storage.uri
    if uri is None:
        raise SpecError(
            "neither the spec nor the profile says where runs are kept",
            field="storage.uri",
            hint="write `storage: {uri: s3://bucket/prefix}` into the spec, or name a profile that does",
        )
    return open_from_here(uri, spec.storage, profile, endpoint_url=endpoint_url)


def open_from_here(uri: str, storage: Storage, profile: Profile, *, endpoint_url: str | None = None) -> ObjectStore:
    """The same for a URI; `storage` is that of a spec, which may leave endpoint and region to the profile."""
    platform = profile.storage
    pods = storage.endpoint_url or platform.endpoint_url
    # Another address from here, but of the profile's own store alone.
    external = platform.external_endpoint_url if pods == platform.endpoint_url else None
    endpoint = endpoint_url or external or pods
    region = storage.region or platform.region
    with _addressed(uri):
        next(open_store(uri, endpoint_url=endpoint, region=region, patience=_FIRST_ANSWER).list("inputs/0"), None)
    return open_store(uri, endpoint_url=endpoint, region=region)


@contextmanager
def _addressed(uri: str) -> Iterator[None]:
    """Says what to do about a store that does not answer, when its address may be that of the cluster."""
    try:
        yield
    except Unavailable as error:
        raise Unavailable(replace(problem, file=uri, hint=_ELSEWHERE) for problem in error.problems) from error
