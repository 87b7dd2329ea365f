"""JobSpec: what a person writes. Its defaults of training are filled in one place only, `sftjob.resolve`."""

from typing import Annotated, Literal

from pydantic import Field

from sftjob.spec.data import Data, ModelSource
from sftjob.spec.launch import Launch, PositiveInt
from sftjob.spec.method import Method
from sftjob.spec.training import Training
from sftjob.spec.types import LocalPath, Quantity, S3Uri, SpecModel


class EvaluationResources(SpecModel):
    """What the evaluation's container asks for; what is left out is as in training."""

    gpus: int | None = Field(default=None, ge=0, le=64)
    """One without it, where training has GPUs."""
    cpu: Quantity | None = None
    memory: Quantity | None = None
    ephemeral_storage: Quantity | None = None
    shared_memory: Quantity | None = None


class Resources(SpecModel):
    """What the training container asks of its node, GPUs apart."""

    cpu: Quantity = "4"
    memory: Quantity = "32Gi"
    ephemeral_storage: Quantity = "100Gi"
    shared_memory: Quantity = "2Gi"
    """Size of /dev/shm, which the container runtime limits to 64 MiB by itself."""
    require_fit: bool = True
    """Refuse a job that needs more memory than its GPU has, by the planner's estimate."""
    evaluation: EvaluationResources = EvaluationResources()


class Storage(SpecModel):
    """Where runs are kept. Credentials come from the environment or a Secret, never from here."""

    uri: S3Uri | LocalPath | None = None
    """`s3://bucket/prefix`, or a folder for `sftjob run`; each run gets a folder of its own below it."""
    endpoint_url: str | None = Field(default=None, pattern=r"^https?://[^\s@?#]+$")
    """Endpoint of an S3-compatible store that is not AWS."""
    region: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,64}$")
    single_writer: bool = False
    """Accept a store without conditional writes: you promise that only one attempt of a run is ever alive."""


class Generation(SpecModel):
    """Answers written out by base and tuned model side by side."""

    prompts: tuple[Annotated[str, Field(min_length=1, max_length=20_000)], ...] = ()
    """New prompts, shown side by side; they have no reference answer."""
    held_out_rows: int = Field(default=20, ge=0)
    """First so many held-out rows whose last answer is generated and compared."""
    max_new_tokens: int = Field(default=128, ge=1, le=8192)
    answer_pattern: str | None = Field(default=None, max_length=500)
    """Regular expression whose first group, at its last match, is a text's answer; without it whole texts count."""


class Evaluation(SpecModel):
    """How base and tuned model are compared. May change without training again."""

    max_rows: PositiveInt | None = None
    """First so many held-out rows are scored; all of them without it."""
    batch_size: PositiveInt = 8
    generation: Generation = Generation()


class Export(SpecModel):
    """What is published of the final weights. May change without training again."""

    merge: bool | None = None
    """Publish the adapter's sum with the base as well, in bf16, when its logits are those of the adapter."""
    merge_tolerance: float | None = Field(default=None, gt=0, lt=1)
    """Largest difference of the merged model's logits, as a share of their size, with which it is published."""


class Monitoring(SpecModel):
    """Where metrics go besides the store, where they always are. May change without training again."""

    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """`tensorboard` writes event files into the run's store; `wandb` needs its key from the environment or a Secret."""
    wandb_project: str | None = Field(default=None, min_length=1, max_length=128)
    wandb_entity: str | None = Field(default=None, min_length=1, max_length=128)
    """User or team at Weights & Biases."""


class Kubernetes(SpecModel):
    """The person's half of what Kubernetes sees; the platform's half is the profile."""

    ttl_seconds_after_finished: int = Field(default=604_800, ge=0)
    """Seconds until a finished Job is deleted; its results stay in the store."""
    termination_grace_period_seconds: int = Field(default=600, ge=90)
    """Seconds between SIGTERM and SIGKILL, in which a checkpoint is saved and uploaded."""
    evaluation: Literal["gate", "cli", "never"] = "gate"
    """Who starts the evaluation when training is done: a small Job in the cluster, `sftjob wait`, or nobody."""
    retries: int = Field(default=3, ge=0, le=100)
    """Crashes after which the Job gives up; interruptions do not count."""
    active_deadline_seconds: PositiveInt | None = None
    """Ends the Job whatever its state; counts the time in which it is pending."""
    priority_class_name: str | None = Field(default=None, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)
    labels: dict[str, str] = Field(default_factory=dict)
    """More labels on every object and pod."""
    annotations: dict[str, str] = Field(default_factory=dict)


class JobSpec(SpecModel):
    """One fine-tuning job: a model, data, a method, and where results go."""

    name: str = Field(pattern=r"^[a-z]([-a-z0-9]{0,28}[a-z0-9])?$")
    """Begins the run's id; at most 30 lower-case letters, digits and dashes."""
    model: ModelSource
    data: Data
    method: Method
    training: Training = Training()
    launch: Launch = Launch()
    export: Export = Export()
    monitoring: Monitoring = Monitoring()
    resources: Resources = Resources()
    storage: Storage = Storage()
    evaluation: Evaluation = Evaluation()
    kubernetes: Kubernetes = Kubernetes()
    salt: str | None = Field(default=None, max_length=64)
    """Anything; another salt is another run of the same spec. `--new-run` sets it."""
