"""A finished run as its store describes it, and which evaluation of it a spec asks for. Nothing heavy is imported."""

from dataclasses import dataclass
from typing import Final

from sftjob.contract import keys
from sftjob.errors import InputMissing, NotFound
from sftjob.records import Export, PreparedData, read_record
from sftjob.resolve import ResolvedJob, read_resolved
from sftjob.spec import JobSpec, canonical_json, run_id, sha256_hex
from sftjob.storage import ObjectStore

EVALUATION_VERSION: Final = 1
"""Raised whenever the same models would get other scores or answers, so that finished evaluations are not reused."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A finished run, as its store describes it."""

    spec: JobSpec
    job: ResolvedJob
    export: Export
    prepared: PreparedData
    store: ObjectStore
    """Seen from the run on."""

    @property
    def eval_id(self) -> str:
        """16 hex digits over all that has a say in the result; the same evaluation is never done twice."""
        content = {
            "version": EVALUATION_VERSION,
            "evaluation": self.spec.evaluation.model_dump(mode="json"),
            "export": {entry.path: entry.sha256 for entry in self.export.files},
            "data": self.prepared.digest,
        }
        return sha256_hex(canonical_json(content))[:16]


def find_subject(spec: JobSpec, root: ObjectStore) -> Subject:
    """Reads what the training has left.

    Args:
        root: the store at `<storage.uri>`.

    Raises:
        InputMissing: training has not finished.
        ConfigurationError: a newer version wrote the run.
    """
    store = root.at(run_id(spec))
    try:
        export = read_record(Export, store.get_bytes(keys.SUCCESS), keys.SUCCESS)
    except NotFound as error:
        if error.problems[0].field:  # the bucket itself is not there
            raise
        raise InputMissing(
            "training has not finished", file=f"{store.uri}/{keys.SUCCESS}", hint="evaluate when the train Job is done"
        ) from error
    data_key = keys.attempt_data(export.attempt)
    return Subject(
        spec=spec,
        job=read_resolved(store.get_bytes(keys.SPEC), keys.SPEC),
        export=export,
        prepared=read_record(PreparedData, store.get_bytes(data_key), data_key),
        store=store,
    )
