"""JobSpec + ModelFacts → ResolvedJob: every default of training is filled here and nowhere else."""

from sftjob.resolve.fill import MAX_LENGTH_DEFAULT, max_length_of, resolve, resolve_export, resolve_with_reasons
from sftjob.resolve.job import RESOLVED_SCHEMA, ResolvedJob, read_resolved

__all__ = [
    "MAX_LENGTH_DEFAULT",
    "RESOLVED_SCHEMA",
    "ResolvedJob",
    "max_length_of",
    "read_resolved",
    "resolve",
    "resolve_export",
    "resolve_with_reasons",
]
