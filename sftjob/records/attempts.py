"""Who works on a run, and how it ended."""

from sftjob.records.base import Record


class Claim(Record):
    """attempts/<n>/claim.json: who runs attempt n. The object's existence is the claim."""

    attempt: int
    owner: str
    pod_uid: str = ""
    nodes: int = 1
    time: str


class PodClaim(Record):
    """attempts/<n>/pods/<index>.json: a pod has joined attempt n."""

    index: int
    pod_uid: str
    time: str


class Start(Record):
    """attempts/<n>/start.json: what all pods of attempt n continue from; index 0 decides."""

    attempt: int
    step: int | None = None
    """Of the COMMIT; None for a fresh start."""


class Lease(Record):
    """attempts/<n>/lease.json: rewritten while the attempt lives. `beat` counts up: clocks are not compared."""

    attempt: int
    beat: int
    time: str


class Result(Record):
    """attempts/<n>/results/<index>.json, released.json and _FAILED: how a pod's attempt ended."""

    attempt: int
    owner: str
    index: int = 0
    exit_code: int
    reason: str = ""
    step: int | None = None
    """Last optimizer step that was finished."""
    time: str
