"""What is written to storage and read back later, perhaps by another version: tolerant to read.

Every record has a `schema_version`; unknown fields are ignored and new fields need a default, so that a newer writer
does not break an older reader. Times are UTC in ISO 8601; sizes are bytes; hashes are SHA-256 in hex.
"""

from sftjob.records.attempts import Claim, Lease, PodClaim, Result, Start
from sftjob.records.base import Record, Stored, read_record
from sftjob.records.data import Audit, LengthBin, PreparedData, SplitAudit, SplitCounts, StagedInput
from sftjob.records.evaluation import Answer, Evaluation, EvaluationManifest, Score, ShardHeader
from sftjob.records.training import Environment, Metric, Reading
from sftjob.records.weights import Commit, Export, FileEntry, LogitDifference, MergedModel, MergeParity, Part, Wanted

__all__ = [
    "Answer",
    "Audit",
    "Claim",
    "Commit",
    "Environment",
    "Evaluation",
    "EvaluationManifest",
    "Export",
    "FileEntry",
    "Lease",
    "LengthBin",
    "LogitDifference",
    "MergeParity",
    "MergedModel",
    "Metric",
    "Part",
    "PodClaim",
    "PreparedData",
    "Reading",
    "Record",
    "Result",
    "Score",
    "ShardHeader",
    "SplitAudit",
    "SplitCounts",
    "StagedInput",
    "Start",
    "Stored",
    "Wanted",
    "read_record",
]
