"""What is written to storage and read back later, perhaps by another version: tolerant to read.

Every record has a `schema_version`; unknown fields are ignored and new fields need a default, so that a newer writer
does not break an older reader. Times are UTC in ISO 8601; sizes are bytes; hashes are SHA-256 in hex.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sftjob.errors import StorageError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
R = TypeVar("R", bound="Stored")


class Stored(BaseModel):
    """Base of the parts of records."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    def to_json(self) -> bytes:
        return self.model_dump_json(exclude_none=True).encode()


class Record(Stored):
    """Base of everything that is an object of its own."""

    schema_version: int = 1


def read_record(cls: type[R], data: bytes, key: str) -> R:
    """Parses a stored record.

    Raises:
        StorageError: the object is not such a record; `key` names it.
    """
    try:
        return cls.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StorageError(f"not a readable {cls.__name__}: {where}: {first['msg']}", file=key) from error


class FileEntry(Stored):
    """One file of a checkpoint, export or data set: where it goes locally and where it lies in the store."""

    path: str
    """POSIX path relative to the folder that is restored; never absolute, never with `..`."""
    key: str
    """Object key relative to the run."""
    size: int
    sha256: Sha256


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


class SplitCounts(Stored):
    """What became of the rows of one split on their way to tokens. Nothing is dropped without a count.

    kept = rows - skipped - unmixed + repeated + unrolled + split - dropped - without_trained_token
    """

    rows: int
    """In the files, those that cannot be used included."""
    kept: int
    """Rows that are trained on or scored; with packing, before they are packed."""
    skipped: int = 0
    """Could not be used; `data.max_skipped_rows` allows it."""
    unmixed: int = 0
    """Left out of a mix by their source's weight."""
    repeated: int = 0
    """Additional copies in a mix."""
    unrolled: int = 0
    """Additional rows, where the template rewrites earlier turns: each trained turn has a row of its own then."""
    split: int = 0
    """Additional rows, where rows longer than `max_length` were split."""
    dropped: int = 0
    """Longer than `max_length`, and dropped for it."""
    truncated: int = 0
    """Longer than `max_length`, and cut off there."""
    without_trained_token: int = 0
    """Left out, since nothing in them would be learned."""
    left_out: int = 0
    """Messages that are in no row: alternatives in a tree, a last question without an answer."""
    straddling: int = 0
    """Tokens that are part prompt and part answer, and therefore not trained."""
    tokens: int = 0
    trained_tokens: int = 0
    longest: int = 0
    """Tokens of the longest kept row."""
    packs: int | None = None
    """Rows that they were packed into; None without packing."""

    @property
    def prepared(self) -> int:
        """Rows in the prepared file: packs, where there are any."""
        return self.kept if self.packs is None else self.packs


class LengthBin(Stored):
    """Rows whose whole length is above the bin before and at most `up_to` tokens."""

    up_to: int
    rows: int


class SplitAudit(Stored):
    """What is in one split."""

    counts: SplitCounts
    messages_by_role: dict[str, int] = {}
    trained_by_role: dict[str, int] = {}
    """Trained tokens of the kept rows."""
    lengths: tuple[LengthBin, ...] = ()
    """Before anything is cut off; in tokens, or in characters where no tokenizer was given."""
    trained_turns: int = 0
    """Turns that are trained, before anything is cut off."""
    trained_ends: int = 0
    """Of them, those that are trained up to the token that ends them."""
    duplicates: int = 0
    """Rows whose conversation an earlier row of the split has, too."""


class Audit(Record):
    """audit.json among the prepared data: what a person should know of the data before they are trained on."""

    tokenised: bool = True
    """False where no model was named: there are no tokens then."""
    splits: dict[str, SplitAudit]
    overlap: int = 0
    """Held-out rows whose question also occurs in the training rows."""
    overlap_rows: tuple[str, ...] = ()
    """Ids of the first of them."""


class PreparedData(Record):
    """data/<hash>/<n>/manifest.json: tokenised data; written last. Also attempts/<n>/data.json, naming it."""

    digest: Sha256
    attempt: int
    template_sha256: Sha256
    vocab_size: int
    """Rows that the embedding needs: tokenizer length, added tokens included."""
    added_token_ids: tuple[int, ...] = ()
    """Tokens that the template needs and the model has never seen; their embeddings are trained under every method."""
    splits: dict[str, SplitCounts]
    """`train`, and `eval` where the spec holds rows out."""
    files: tuple[FileEntry, ...]


class Metric(Stored):
    """One line of metrics/<n>/<segment>.jsonl."""

    kind: Literal["train", "eval"] = "train"
    attempt: int
    step: int
    epoch: float
    loss: float
    loss_hex: str
    """`float.hex()` of the loss, for comparing runs bit by bit."""
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_seen: int | None = None
    """Non-padding tokens, all ranks, since step 0 of the run."""
    trained_tokens_seen: int | None = None
    tokens_per_second: float | None = None
    """Non-padding tokens a second over all ranks since the line before."""
    seconds: float | None = None
    """Training time since step 0 of the run, over all attempts."""
    memory_bytes: int | None = None
    """Peak so far of rank 0: device memory on a GPU, resident set on a CPU."""
    memory_kind: Literal["device", "resident"] | None = None
    """Which of the two `memory_bytes` is; None in lines of older versions."""
    gpu_memory_bytes: int | None = None
    """Used on the fullest of the GPUs of rank 0's node, by every process; this and the following are of that moment."""
    gpu_utilisation_percent: float | None = None
    """Mean over the node's GPUs."""
    gpu_power_watts: float | None = None
    """Sum over the node's GPUs."""
    gpu_temperature_celsius: float | None = None
    """Of the node's hottest GPU."""
    host_cpu_percent: float | None = None
    """Of the CPU time that the pod or machine had since the line before."""
    host_memory_bytes: int | None = None
    """What counts towards an out-of-memory kill of the pod, or of the machine where no cgroup limits it."""
    host_memory_limit_bytes: int | None = None
    time: str


class Environment(Record):
    """attempts/<n>/results/<index>.environment.json: what was asked for and what ran, at step 0."""

    attempt: int
    index: int = 0
    versions: dict[str, str]
    device: str
    device_count: int
    asked: dict[str, str | int | float]
    ran: dict[str, str | int | float]


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
    settings: dict[str, bool | int | float | str] = {}
    """The resolved spec in dotted paths, for people: `training.learning_rate`, `method.r`, …"""
    time: str
