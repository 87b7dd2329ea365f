"""Checkpoints and exports: which files belong together."""

from typing import Literal

from sftjob.records.base import Record, Sha256, Stored


class FileEntry(Stored):
    """One file of a checkpoint, export or data set: where it goes locally and where it lies in the store."""

    path: str
    """POSIX path relative to the folder that is restored; never absolute, never with `..`."""
    key: str
    """Object key relative to the run."""
    size: int
    sha256: Sha256


class Commit(Record):
    """commits/<step>.json: a checkpoint exists because this object exists."""

    run_id: str
    attempt: int
    step: int
    spec_sha256: Sha256
    world_size: int
    files: tuple[FileEntry, ...]


class Wanted(Record):
    """checkpoints/<step>/<n>/parts/wanted.json: nodes may skip steps, and this one is to be uploaded by all."""

    attempt: int
    step: int


class Part(Record):
    """checkpoints/<step>/<n>/parts/<node>.json: the files that one node has uploaded for a step."""

    node: int
    files: tuple[FileEntry, ...]


class LogitDifference(Stored):
    """How far logit vectors lie from expected ones, over all positions that were compared."""

    max: float
    """Norm of the difference as a share of the expected vector's norm."""
    mean: float
    top1: float
    """Share of positions at which the likeliest token is the same."""


class MergeParity(Stored):
    """What a merged model was compared with before it was published."""

    split: str
    """Where the rows come from: `eval`, or `train` where none are held out."""
    rows: int
    positions: int
    """Tokens whose logits were compared."""
    tolerance: float
    """Largest difference with which it is published."""
    measure: Literal["max", "mean"] = "max"
    """Which difference that is: `mean` for mixtures, where rounding sends a token that lies between two experts to the
    other one."""
    difference: LogitDifference
    """From the adapter over the unquantised base."""
    effect: LogitDifference | None = None
    """Of the adapter itself: how far the base is from it."""
    trained: LogitDifference | None = None
    """From the adapter over the quantised base that it was trained on; None where that was the unquantised one."""


class MergedModel(Stored):
    """An adapter's sum with its base, a whole model."""

    files: tuple[FileEntry, ...]
    parity: MergeParity


class Export(Record):
    """_SUCCESS: the manifest of the final weights. Training is durable when it exists."""

    run_id: str
    attempt: int
    step: int
    method: str
    adapter: bool
    """True: `files` hold an adapter that is loaded over the base model; False: a whole model."""
    files: tuple[FileEntry, ...]
    merged: MergedModel | None = None
    """The same weights once more as a whole model; None where the spec does not ask for it."""
    template_sha256: str = ""
    """Of the chat template that it was trained with, which lies beside the weights."""
    time: str
