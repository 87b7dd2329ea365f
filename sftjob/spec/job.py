"""JobSpec: what a person writes. Its defaults of training are filled in one place only, `sftjob.resolve`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sftjob.spec.data import Data, ModelSource
from sftjob.spec.method import Method
from sftjob.spec.types import LocalPath, Quantity, S3Uri, SpecModel

PositiveInt = Annotated[int, Field(ge=1)]


class Training(SpecModel):
    """Hyperparameters under the names that transformers and TRL give them. What is left out is filled by `resolve`."""

    num_train_epochs: float | None = Field(default=None, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    """Optimizer steps; instead of `num_train_epochs`."""
    learning_rate: float | None = Field(default=None, gt=0, lt=1e3)
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] | None = None
    warmup_steps: float | None = Field(default=None, ge=0)
    """Steps, or below 1 the share of all steps, over which the learning rate rises."""
    weight_decay: float | None = Field(default=None, ge=0)
    max_grad_norm: float | None = Field(default=None, gt=0)
    per_device_train_batch_size: PositiveInt | None = None
    """Rows a process takes at once."""
    gradient_accumulation_steps: PositiveInt | None = None
    per_device_eval_batch_size: PositiveInt | None = None
    max_length: int | None = Field(default=None, ge=2)
    """Tokens of a row, and of a pack; longer rows are treated as `data.overlong` says, and counted."""
    packing: bool | None = None
    """Put several rows into one of `max_length` tokens, each with positions and attention of its own."""
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    precision: Literal["bf16", "fp32"] | None = None
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, about a third more time."""
    logging_steps: PositiveInt | None = None
    save_steps: PositiveInt | None = None
    """Steps between checkpoints."""
    save_total_limit: int | None = Field(default=None, ge=2)
    """Committed checkpoints that are kept; older ones are deleted."""
    eval_steps: PositiveInt | None = None
    """Steps between losses on the held-out rows."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.num_train_epochs is not None and self.max_steps is not None:
            raise ValueError("`num_train_epochs` and `max_steps` exclude each other; keep one")
        return self


class Launch(SpecModel):
    """How many processes train, and on what."""

    nodes: PositiveInt = 1
    gpus_per_node: int = Field(default=1, ge=0, le=64)
    """0 trains on the CPU. `sftjob run` writes the machine's own number here."""
    gpu: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """GPU product as the node label `nvidia.com/gpu.product` names it, for instance `NVIDIA-H100-80GB-HBM3`."""
    processes_per_node: PositiveInt | None = None
    """Only without GPUs, where it defaults to 1; with GPUs there is one process each."""
    strategy: Literal["auto", "single", "ddp"] = "auto"
    """How processes share the work; `auto` chooses."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.gpus_per_node and self.processes_per_node not in (None, self.gpus_per_node):
            raise ValueError("`processes_per_node` must equal `gpus_per_node`: one process a GPU; leave it out")
        if self.strategy == "single" and self.processes > 1:
            raise ValueError("`strategy: single` allows one process; write `ddp` or `auto`")
        return self

    @property
    def local_processes(self) -> int:
        """Processes on each node."""
        return self.gpus_per_node or self.processes_per_node or 1

    @property
    def processes(self) -> int:
        """Processes on all nodes: the world size."""
        return self.nodes * self.local_processes


class Resources(SpecModel):
    """What the training container asks of its node, GPUs apart."""

    cpu: Quantity = "4"
    memory: Quantity = "32Gi"
    ephemeral_storage: Quantity = "100Gi"
    shared_memory: Quantity = "2Gi"
    """Size of /dev/shm, which the container runtime limits to 64 MiB by itself."""


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


class Kubernetes(SpecModel):
    """The person's half of what Kubernetes sees; the platform's half is the profile."""

    ttl_seconds_after_finished: int = Field(default=604_800, ge=0)
    """Seconds until a finished Job is deleted; its results stay in the store."""
    termination_grace_period_seconds: int = Field(default=600, ge=90)
    """Seconds between SIGTERM and SIGKILL, in which a checkpoint is saved and uploaded."""
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
    resources: Resources = Resources()
    storage: Storage = Storage()
    evaluation: Evaluation = Evaluation()
    kubernetes: Kubernetes = Kubernetes()
    salt: str | None = Field(default=None, max_length=64)
    """Anything; another salt is another run of the same spec. `--new-run` sets it."""
