"""Checkpoints of several nodes: each uploads the files that its ranks have written, pod 0 waits for all and commits.

Uploads may take longer than the steps between two saves, so that steps are skipped, and nodes must not skip different
ones. Pod 0 takes the newest step that it has, says so in the store, and the others upload that one.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from sftjob.contract import keys
from sftjob.errors import CrashError, NotFound, Unavailable
from sftjob.records import Part, Wanted, read_record
from sftjob.storage import committed_by
from sftjob.storage.base import exists
from sftjob.train.attempt import Attempt, say
from sftjob.train.membership import Peers
from sftjob.train.publish import Uploader, forget_local, newest_saved, saved_steps, upload_part

CRASHED_SECONDS: Final = 60.0
"""How long the end of a crashed attempt waits for parts: its peers may be gone, or may be uploading what they saved."""


class Patience:
    """How long pods wait for one another's parts."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._deadline: float | None = None

    def limit(self, seconds: float) -> None:
        """From now on, all waiting taken together."""
        self._deadline = time.monotonic() + seconds

    def over(self, since: float) -> bool:
        """Since the monotonic time `since`, or since `limit`."""
        moment = time.monotonic()
        return moment - since >= self.seconds or (self._deadline is not None and moment >= self._deadline)


class PartsOfPeers:
    """For pod 0: asks for the other nodes' parts of a step and waits for them."""

    def __init__(self, attempt: Attempt, peers: Peers, patience: Patience, *, look_seconds: float) -> None:
        self._attempt = attempt
        self._peers = peers
        self._patience = patience
        self._look_seconds = look_seconds

    def ask(self, step: int) -> None:
        """Tells peers that this step is to be uploaded."""
        number = self._attempt.number
        self._attempt.store.put_bytes(keys.wanted(step, number), Wanted(attempt=number, step=step).to_json())

    def gather(self, step: int, meanwhile: Callable[[], None]) -> list[Part]:
        """The parts of all other nodes.

        Args:
            meanwhile: is called at every look.

        Raises:
            CrashError: a node has ended without its part, or takes too long. There will be no COMMIT of this step.
        """
        begin, found = time.monotonic(), dict[int, Part]()
        while True:
            ended = self._peers.results.keys()  # looked at first: a result is written after the part
            missing = [node for node in range(1, self._attempt.job.launch.nodes) if node not in found]
            found |= {node: part for node in missing if (part := self._part(step, node)) is not None}
            missing = [node for node in missing if node not in found]
            if not missing:
                return list(found.values())
            if self._patience.over(begin) or any(node in ended for node in missing):
                names = ", ".join(map(str, missing))
                raise CrashError(f"step {step} was not committed: the part of node {names} did not come")
            meanwhile()
            time.sleep(self._look_seconds)

    def _part(self, step: int, node: int) -> Part | None:
        key = keys.part(step, self._attempt.number, node)
        try:
            return read_record(Part, self._attempt.store.get_bytes(key), key)
        except NotFound:
            return None


class PartPublisher(Uploader):
    """For the other pods, in the place of `publish.Publisher`: uploads the steps that pod 0 asks for.

    `drain` waits until the newest step that is saved has its COMMIT, or will not get one.
    """

    def __init__(
        self, attempt: Attempt, peers: Peers, patience: Patience, *, resumed: int | None, look_seconds: float
    ) -> None:
        """Starts the thread.

        Args:
            resumed: step of the COMMIT that this attempt continues from; None for a fresh start.
        """
        super().__init__(resumed=resumed)
        self._attempt = attempt
        self._peers = peers
        self._patience = patience
        self._look_seconds = look_seconds
        self._uploaded: int | None = None
        self._start("parts")

    def _run(self) -> None:
        while not self._last.wait(self._look_seconds):
            self._look()
        begin = time.monotonic()
        while True:
            over = self._patience.over(begin) or 0 in self._peers.results
            self._look()
            if over or self._newer_than_committed(newest_saved(self._attempt)) is None:
                return
            time.sleep(self._look_seconds)

    def _look(self) -> None:
        step = self._asked_for()
        if step is not None:
            begin = time.monotonic()
            upload_part(self._attempt, step)
            self._uploaded = step
            say(f"uploaded this node's part of step {step} ({time.monotonic() - begin:.1f} s)")
        # Whether it was committed can be seen later, too.
        with suppress(Unavailable):
            self._look_for_commit()

    def _asked_for(self) -> int | None:
        """A step that is saved here, is asked for, and was not uploaded."""
        done = -1 if self._uploaded is None else self._uploaded
        for step in reversed(saved_steps(self._attempt)):
            with suppress(Unavailable):
                if step > done and exists(self._attempt.store, keys.wanted(step, self._attempt.number)):
                    return step
        return None

    def _look_for_commit(self) -> None:
        uploaded = self._newer_than_committed(self._uploaded)
        if uploaded is None:
            return
        found = committed_by(self._attempt.store, self._attempt.number, uploaded)
        if found is not None:
            self._committed = found
            forget_local(self._attempt, found)

    def _newer_than_committed(self, step: int | None) -> int | None:
        return step if step is not None and (self._committed is None or step > self._committed) else None
