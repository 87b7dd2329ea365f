"""How base and tuned model compare."""

from typing import Literal

from pydantic import Field

from sftjob.records.base import Record, Sha256, Stored
from sftjob.records.data import SplitCounts
from sftjob.records.training import Metric
from sftjob.records.weights import FileEntry


class Score(Stored):
    """How one model does on the held-out rows, under one prompt format."""

    model: str
    """`base` or `tuned`."""
    prompt_format: Literal["template", "plain"]
    """`template`: as trained. `plain`: role names and text, for a base model that has never seen the template."""
    rows: int
    trained_tokens: int
    loss: float
    perplexity: float
    token_accuracy: float
    generated: int = 0
    exact_match: float | None = None
    """Share of generated answers that equal the reference after extraction; None when nothing was generated."""


class Answer(Stored):
    """One generated answer; lines of eval/<eval_id>/shards/."""

    id: str
    model: str
    prompt_format: Literal["template", "plain"]
    prompt: str
    reference: str | None = None
    answer: str
    match: bool | None = None
    """Answer equals reference after extraction; None for a prompt without a reference."""


class ShardHeader(Stored):
    """First line of eval/<eval_id>/shards/<model>-<k>.jsonl; its `Answer` lines follow."""

    model: str
    prompt_format: Literal["template", "plain"]
    score: Score | None = None
    """None where no row is held out: nothing was scored."""


class EvaluationManifest(Record):
    """eval/<eval_id>/_SUCCESS: the evaluation is finished; written last."""

    run_id: str
    eval_id: str
    files: tuple[FileEntry, ...]
    time: str


class Evaluation(Record):
    """eval/<eval_id>/scores.json: one run's whole evaluation, enough to write its report."""

    run_id: str
    eval_id: str
    name: str
    method: str
    step: int
    base_model: str
    """What a person calls the base: hub id, folder name or URI."""
    data_digest: Sha256
    trainable_parameters: int
    total_parameters: int
    scores: tuple[Score, ...]
    answers: tuple[Answer, ...]
    data: dict[str, SplitCounts]
    metrics: tuple[Metric, ...]
    seconds_training: float
    base_identity: str = ""
    """Which base exactly: `hub@revision`, content hash or URI. Runs compare only on the same one."""
    held_out_digest: str = ""
    """SHA-256 over the token ids and labels that were scored and the references that were compared."""
    peak_memory_bytes: int | None = None
    """Most that a line of metrics tells, over all attempts."""
    peak_memory_kind: Literal["device", "resident"] | None = None
    estimated_memory_bytes: int | None = None
    """What the planner expected of one GPU, before training."""
    settings: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """The resolved spec in dotted paths, for people: `training.learning_rate`, `method.r`, …"""
    time: str
