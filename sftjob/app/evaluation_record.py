"""Puts an evaluation's record together from its shards and from what the training has left. No torch here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sftjob.app.subject import Subject
from sftjob.contract import keys
from sftjob.errors import NotFound
from sftjob.evaluate.questions import PromptFormat
from sftjob.inputs import base_name
from sftjob.records import Answer, Environment, Evaluation, Metric, Score, ShardHeader, read_record
from sftjob.spec import HubModel, LocalModel, ModelSource, PinnedModel, StoredModel
from sftjob.storage import ObjectStore

_SHARD_BYTES: Final = 2**28
Shard = tuple[Score | None, tuple[Answer, ...]]
Scalar = bool | int | float | str


@dataclass(frozen=True)
class Part:
    """One model under one prompt format: what is stored as one shard."""

    model: str
    prompt_format: PromptFormat
    number: int

    def key(self, eval_id: str) -> str:
        return keys.shard(eval_id, self.model, self.number)


PARTS: Final = (Part("base", "template", 0), Part("base", "plain", 1), Part("tuned", "template", 0))
"""The tuned model is asked only as it was trained. Parts of one model stand together: each is loaded once."""


def read_shard(store: ObjectStore, key: str) -> Shard:
    """What one model did.

    Raises:
        StorageError: the object is no shard.
    """
    lines = store.get_bytes(key, max_bytes=_SHARD_BYTES).splitlines() or [b""]
    header = read_record(ShardHeader, lines[0], key)
    return header.score, tuple(read_record(Answer, line, key) for line in lines[1:])


def shard_bytes(header: ShardHeader, answers: Sequence[Answer]) -> bytes:
    """A header line, then a line an answer."""
    return b"".join(record.to_json() + b"\n" for record in (header, *answers))


def evaluation_record(subject: Subject, shards: Sequence[Shard], *, held_out_digest: str) -> Evaluation:
    """The whole evaluation of a run.

    Args:
        shards: every model's score and answers.
        held_out_digest: of what was scored and compared.
    """
    metrics = read_metrics(subject.store)
    environment = _environment(subject.store, subject.export.attempt)
    ran = environment.ran if environment else {}
    peak = max((line for line in metrics if line.memory_bytes), key=lambda line: line.memory_bytes or 0, default=None)
    return Evaluation(
        run_id=subject.job.run_id,
        eval_id=subject.eval_id,
        name=subject.job.name,
        method=subject.export.method,
        step=subject.export.step,
        base_model=base_name(subject.job.model),
        base_identity=base_identity(subject.job.model),
        data_digest=subject.prepared.digest,
        held_out_digest=held_out_digest,
        trainable_parameters=int(ran.get("trainable_parameters", 0)),
        total_parameters=int(ran.get("total_parameters", 0)),
        scores=tuple(score for score, _ in shards if score),
        answers=tuple(answer for _, answers in shards for answer in answers),
        data=subject.prepared.splits,
        metrics=metrics,
        seconds_training=max((line.seconds for line in metrics if line.seconds is not None), default=0.0),
        peak_memory_bytes=peak.memory_bytes if peak else None,
        peak_memory_kind=peak.memory_kind if peak else None,
        estimated_memory_bytes=None if peak and peak.memory_kind == "resident" else _estimated(environment),
        settings=dict(_settings(subject)),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def read_metrics(store: ObjectStore) -> tuple[Metric, ...]:
    """All lines of a run by step; where attempts overlap, the latest one's line counts: it is in the final weights.

    Raises:
        StorageError: a segment holds something else; it is named.
    """
    latest: dict[tuple[int, str], Metric] = {}
    for key in [info.key for info in store.list(keys.METRICS)]:
        for line in store.get_bytes(key).splitlines():
            metric = read_record(Metric, line, key)
            place = (metric.step, metric.kind)
            if place not in latest or metric.attempt >= latest[place].attempt:
                latest[place] = metric
    return tuple(latest[place] for place in sorted(latest))


def base_identity(source: ModelSource) -> str:
    """Which base exactly."""
    match source:
        case HubModel():
            return f"{source.hub}@{source.revision}"
        case PinnedModel():
            return f"sha256:{source.sha256}"
        case StoredModel():
            return source.uri
        case LocalModel():
            return source.path


def _environment(store: ObjectStore, attempt: int) -> Environment | None:
    """Of the newest attempt that recorded it; None where none did."""
    for number in range(attempt, 0, -1):
        key = keys.environment(number, 0)
        try:
            return read_record(Environment, store.get_bytes(key), key)
        except NotFound:
            continue
    return None


def _estimated(environment: Environment | None) -> int | None:
    """What the planner expected; only of a GPU, whose tensors are what is measured there."""
    value = environment.asked.get("memory_bytes") if environment else None
    return int(value) if isinstance(value, int | float) and value > 0 else None


def _settings(subject: Subject) -> Iterator[tuple[str, Scalar]]:
    job, evaluation = subject.job, subject.spec.evaluation
    yield "data.template", job.data.template if isinstance(job.data.template, str) else "of the spec"
    yield from _flat("data", job.data.model_dump(mode="json", include={"train_on", "overlong"}))
    for block in ("method", "training", "launch"):
        yield from _flat(block, getattr(job, block).model_dump(mode="json"))
    yield from _flat("evaluation", evaluation.model_dump(mode="json", exclude={"generation": {"prompts"}}))


def _flat(path: str, value: object) -> Iterator[tuple[str, Scalar]]:
    """Dotted paths of a JSON value; lists as one text, nothing for null."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{path}.{name}", inner)
    elif isinstance(value, list):
        yield path, ", ".join(map(str, value))
    elif isinstance(value, bool | int | float | str):
        yield path, value
