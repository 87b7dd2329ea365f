"""Is the store there, does it let us in, and does it keep the one promise that claims and commits rest on?"""

import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import Final

from sftjob.errors import ConfigurationError, Exists, SftjobError, StorageError
from sftjob.storage.base import ObjectStore

_CREATORS: Final = 8
_HINT: Final = (
    "use a store with conditional writes, or set storage.single_writer: true and never run one spec twice at once"
)


def probe(store: ObjectStore, *, single_writer: bool) -> None:
    """Lets eight creators race for one key, of which exactly one must win; a later one must be refused.

    Args:
        single_writer: skip the race; only that objects can be written, read, listed and deleted is tried.

    Raises:
        Denied: credentials or rights.
        NotFound: the bucket is missing.
        Unavailable: no answer.
        ConfigurationError: the store has no working conditional writes.
    """
    key = f"probe/{uuid.uuid4().hex}"
    # Before the race, so that wrong credentials are one refusal and not eight, and a dead store is waited for once.
    next(store.list(key), None)
    try:
        if single_writer:
            _write_and_read(store, key)
        else:
            _race(store, key)
    except SftjobError:
        with suppress(SftjobError):
            store.delete(key)
        raise
    store.delete(key)


def _write_and_read(store: ObjectStore, key: str) -> None:
    store.put_bytes(key, _content(0))
    if store.get_bytes(key) != _content(0):
        raise StorageError("the store gives back other bytes than it was given", file=f"{store.uri}/{key}")


def _race(store: ObjectStore, key: str) -> None:
    start = Barrier(_CREATORS)

    def create(number: int) -> bool:
        start.wait()
        return _created(store, key, _content(number))

    with ThreadPoolExecutor(_CREATORS) as pool:
        winners = [number for number, won in enumerate(pool.map(create, range(_CREATORS))) if won]
    if len(winners) != 1:
        raise _no_conditions(store, f"{len(winners)} of {_CREATORS} writers created the same object")
    if _created(store, key, _content(_CREATORS)):
        raise _no_conditions(store, "an object that was there was replaced")
    if store.get_bytes(key) != _content(winners[0]):
        raise _no_conditions(store, "a refused write replaced the object")


def _created(store: ObjectStore, key: str, content: bytes) -> bool:
    try:
        store.put_bytes(key, content, if_absent=True)
    except Exists:
        return False
    return True


def _content(number: int) -> bytes:
    return f"creator {number}".encode()


def _no_conditions(store: ObjectStore, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"this store ignores conditional writes: {what}", file=store.uri, field="storage.single_writer", hint=_HINT
    )
