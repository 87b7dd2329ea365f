"""What runs, as it is stored and read back.

A run resolves once. Its first attempt stores the result as spec.json and later ones read it, so that a newer image with
other defaults continues the same training.
"""

from typing import Final

from pydantic import Field, ValidationError

from sftjob.errors import ConfigurationError
from sftjob.plan import ModelFacts
from sftjob.records import Record
from sftjob.resolved import ResolvedLaunch, ResolvedMethod, ResolvedTraining
from sftjob.spec import Data, ModelSource

RESOLVED_SCHEMA: Final = 1


class ResolvedJob(Record):
    """What runs: nothing optional is left. Stored as spec.json."""

    schema_version: int = RESOLVED_SCHEMA
    run_id: str
    name: str
    model: ModelSource
    facts: ModelFacts
    data: Data
    method: ResolvedMethod = Field(discriminator="type")
    training: ResolvedTraining
    launch: ResolvedLaunch

    @property
    def rows_per_step(self) -> int:
        """Effective batch size: rows that one optimizer step sees, all processes."""
        training = self.training
        return training.per_device_train_batch_size * training.gradient_accumulation_steps * self.launch.world_size


def read_resolved(data: bytes, key: str) -> ResolvedJob:
    """Parses a stored spec.json.

    Raises:
        ConfigurationError: another version wrote what this one cannot honour; the field is named.
    """
    try:
        # First of all, since a newer version may have changed any other field.
        version = Record.model_validate_json(data).schema_version
        if version <= RESOLVED_SCHEMA:
            return ResolvedJob.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(
            first["msg"],
            file=key,
            field=".".join(str(part) for part in first["loc"]),
            hint="continue with the image that started this run, or start another one with --new-run",
        ) from error
    raise ConfigurationError(
        f"written by a newer version (schema {version}, this one reads {RESOLVED_SCHEMA})",
        file=key,
        field="schema_version",
        hint="use the image that started this run",
    )
