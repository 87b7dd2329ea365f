"""The attempt's sign of life, and its look at whether a newer attempt has taken over."""

import threading
from contextlib import suppress

from sftjob.contract import LEASE_SECONDS
from sftjob.errors import Unavailable
from sftjob.storage import Lease, ensure_current
from sftjob.train.attempt import Attempt
from sftjob.train.background import Background


class Heartbeat:
    """Beats and looks at once, then every `LEASE_SECONDS`, in a thread of its own until `stop`."""

    def __init__(self, attempt: Attempt, *, every_seconds: float = LEASE_SECONDS) -> None:
        self._attempt = attempt
        self._lease = Lease(attempt.store, attempt.number)
        self._every_seconds = every_seconds
        self._stop = threading.Event()
        self._lease.beat()
        self._thread = Background(self._run, "heartbeat")

    def check(self) -> None:
        """Raises `Superseded` once a newer attempt has been seen, and whatever else ended the thread."""
        self._thread.check()

    def stop(self) -> None:
        """No beat begins after this; one that is under way is left to itself."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._every_seconds):
            # A store that does not answer is the publisher's matter: it must not end a training that can go on.
            with suppress(Unavailable):
                ensure_current(self._attempt.store, self._attempt.number)
                self._lease.beat()
