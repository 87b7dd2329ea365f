"""Reads a run's evaluation back out of its store."""

from typing import Final

from sftjob.contract import keys
from sftjob.errors import InputMissing, StorageError
from sftjob.records import Evaluation, EvaluationManifest, read_record
from sftjob.spec import sha256_hex
from sftjob.storage.base import ObjectStore

SCORES: Final = "scores.json"
MAX_BYTES: Final = 2**28
"""Scores hold every answer: thousands of long ones still fit."""


def load_evaluation(store: ObjectStore) -> Evaluation:
    """The newest finished evaluation of a run.

    Args:
        store: seen from the run on, as `store.at(run_id)`.

    Raises:
        InputMissing: the run has none.
        StorageError: its scores are not what its manifest says.
    """
    newest = newest_evaluation(store)
    if newest is None:
        raise InputMissing(
            "no finished evaluation", file=store.uri, hint="let `sftjob run` or the eval Job finish first"
        )
    entry = next((entry for entry in newest.files if entry.path == SCORES), None)
    if entry is None:
        raise StorageError(f"names no {SCORES}", file=keys.evaluation(newest.eval_id, keys.SUCCESS))
    data = store.get_bytes(entry.key, max_bytes=MAX_BYTES)
    if sha256_hex(data) != entry.sha256:
        raise StorageError("another SHA-256 than its manifest says", file=entry.key, hint="evaluate again")
    return read_record(Evaluation, data, entry.key)


def newest_evaluation(store: ObjectStore) -> EvaluationManifest | None:
    """The manifest of a run's newest finished evaluation; None where there is none. `store` as for the evaluation."""
    done = [info.key for info in store.list(keys.EVALUATIONS) if info.key.endswith(f"/{keys.SUCCESS}")]
    manifests = (read_record(EvaluationManifest, store.get_bytes(key), key) for key in done)
    return max(manifests, key=lambda manifest: manifest.time, default=None)
