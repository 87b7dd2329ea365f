"""Every string and number that the laptop and the container must agree on.

The laptop renders a pod that sets `Env` names and mounts `Mount` paths; the container reads them, writes objects under
`keys` and ends with an `ExitCode` that the Job's podFailurePolicy understands. Nothing here imports anything of ours.
"""

from enum import IntEnum, StrEnum
from typing import Final

API_GROUP: Final = "sftjob.dev"


class JobAction(StrEnum):
    """What a Kubernetes Job does with a pod that ended with a given code (podFailurePolicy actions)."""

    FAIL_JOB = "FailJob"
    COUNT = "Count"
    IGNORE = "Ignore"


class ExitCode(IntEnum):
    """The only table of exit codes: of the command line, of PID 1 in a pod, and of its ranks' result files."""

    DONE = 0
    SPEC = 64
    DATA = 65
    INPUT = 66
    CLUSTER = 69
    CRASH = 70
    DISK_FULL = 73
    STORAGE = 74
    INTERRUPTED = 75
    INTERRUPTED_UNSAVED = 76
    CREDENTIALS = 77
    CONFIGURATION = 78
    DIVERGED = 80
    SUPERSEDED = 81
    HANG = 82
    WALLTIME = 83
    HELD = 84

    @property
    def meaning(self) -> str:
        """One short phrase for people: what happened."""
        return _MEANING[self]

    @property
    def action(self) -> JobAction:
        """What the train Job does when its pod ends with this code."""
        if self in _FAIL_JOB:
            return JobAction.FAIL_JOB
        return JobAction.IGNORE if self in _IGNORE else JobAction.COUNT


_MEANING: Final[dict[ExitCode, str]] = {
    ExitCode.DONE: "done",
    ExitCode.SPEC: "the spec or the command line is wrong",
    ExitCode.DATA: "the data are wrong",
    ExitCode.INPUT: "an input is missing",
    ExitCode.CLUSTER: "the cluster does not answer, or not as it should",
    ExitCode.CRASH: "crashed",
    ExitCode.DISK_FULL: "the disk is full",
    ExitCode.STORAGE: "the object store does not answer",
    ExitCode.INTERRUPTED: "interrupted, progress saved",
    ExitCode.INTERRUPTED_UNSAVED: "interrupted, progress since the last commit lost",
    ExitCode.CREDENTIALS: "access denied",
    ExitCode.CONFIGURATION: "the configuration does not fit this run, model or machine",
    ExitCode.DIVERGED: "the loss is not finite",
    ExitCode.SUPERSEDED: "superseded by a newer attempt",
    ExitCode.HANG: "no progress",
    ExitCode.WALLTIME: "walltime reached, progress saved",
    ExitCode.HELD: "the run is held by another Job",
}
_FAIL_JOB: Final = frozenset(
    {
        ExitCode.SPEC,
        ExitCode.DATA,
        ExitCode.INPUT,
        ExitCode.CREDENTIALS,
        ExitCode.CONFIGURATION,
        ExitCode.DIVERGED,
        ExitCode.WALLTIME,
        ExitCode.HELD,
    }
)
_IGNORE: Final = frozenset({ExitCode.INTERRUPTED, ExitCode.INTERRUPTED_UNSAVED, ExitCode.SUPERSEDED})


class Env(StrEnum):
    """Environment variables that a rendered pod (or `sftjob run`) sets and the container reads."""

    SPEC = "SFTJOB_SPEC"
    """Path of the authored spec as canonical JSON."""
    WORK = "SFTJOB_WORK"
    """Writable folder for everything local: models, data, checkpoints on their way to the store."""
    OWNER = "SFTJOB_OWNER"
    """UID of the JobSet or Job that owns the pod; `local` outside a cluster."""
    POD_UID = "SFTJOB_POD_UID"
    POD_INDEX = "JOB_COMPLETION_INDEX"
    """Set by Kubernetes itself in Indexed Jobs; absent means 0."""
    MASTER_ADDR = "MASTER_ADDR"
    """Where pod 0 can be reached by its peers, for instance `<job>-0.<service>`; several nodes need it."""
    MASTER_PORT = "MASTER_PORT"
    """Of the ranks' rendezvous in pod 0; 29500 without it."""
    GRACE_SECONDS = "SFTJOB_GRACE_SECONDS"
    """The pod's terminationGracePeriodSeconds, from which PID 1 takes its margins."""
    STORAGE_URI = "SFTJOB_STORAGE_URI"
    """Where runs live when the spec does not say (the platform's half)."""
    INPUTS = "SFTJOB_INPUTS"
    """JSON object {sha256: local path} of pinned inputs that need no fetching; only `sftjob run` sets it."""
    CACHE = "SFTJOB_CACHE"
    """Folder in which base models are kept for other pods; without it each pod fetches its own."""
    TRAIN = "SFTJOB_TRAIN"
    """Of the gate: the training that it watches, as `job/NAME` or `jobset/NAME`."""
    EVAL = "SFTJOB_EVAL"
    """Of the gate: the name of the evaluation Job that it lets start."""
    NAMESPACE = "SFTJOB_NAMESPACE"
    """Of the gate: where both are."""
    QUEUE = "SFTJOB_QUEUE"
    """Of the gate: the Kueue queue that the evaluation is handed to; absent without Kueue."""
    DIE_WITH_PARENT = "SFTJOB_DIE_WITH_PARENT"
    """`1`: the supervisor ends when its parent does; only `sftjob run` sets it."""
    FAULT = "SFTJOB_FAULT"
    """`point:action:nth[:rank]`, a fault that tests inject; see `sftjob.train.fault`."""


class UserEnv(StrEnum):
    """Environment variables that a person may set for the command line."""

    PROFILE = "SFTJOB_PROFILE"
    """File or name of the profile where `--profile` is left out."""
    ENDPOINT_URL = "SFTJOB_ENDPOINT_URL"
    """The store as this machine reaches it, where pods use another address."""


class Mount(StrEnum):
    """Paths inside the container."""

    SPEC = "/etc/sftjob"
    WORK = "/workspace"
    CACHE = "/cache"
    CREDENTIALS = "/var/run/secrets/sftjob/aws"
    HUB_TOKEN = "/var/run/secrets/sftjob/hub"


SPEC_FILE: Final = "spec.json"


class Label(StrEnum):
    """Label keys on every object that `render` writes."""

    NAME = "app.kubernetes.io/name"
    COMPONENT = "app.kubernetes.io/component"
    MANAGED_BY = "app.kubernetes.io/managed-by"
    RUN_ID = "sftjob.dev/run-id"
    REVISION = "sftjob.dev/revision"
    """Tells the objects of one rendering of a run from those of another image, size or evaluation."""


QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
"""By which Kueue finds what it is to admit."""
HELD_QUEUE: Final = "sftjob-held"
"""A queue that does not exist. A Job without a queue may be given `default` by Kueue, and would be admitted at once."""


class Component(StrEnum):
    TRAIN = "train"
    EVAL = "eval"
    GATE = "gate"


LOCAL_OWNER: Final = "local"
RENDEZVOUS_PORT: Final = 29500
"""On which the ranks of several pods find pod 0."""
LEASE_SECONDS: Final = 30
LEASE_LOST_SECONDS: Final = 120


class keys:  # noqa: N801 - a namespace of functions, read as `keys.commit(7)`
    """Object keys below `<storage.uri>/<run_id>/`, as the storage layout of docs/storage.md draws them."""

    SPEC = "spec.json"
    SUCCESS = "_SUCCESS"
    FAILED = "_FAILED"
    ATTEMPTS = "attempts/"
    COMMITS = "commits/"
    METRICS = "metrics/"
    EVALUATIONS = "eval/"

    @staticmethod
    def claim(attempt: int) -> str:
        return f"attempts/{attempt}/claim.json"

    @staticmethod
    def lease(attempt: int) -> str:
        return f"attempts/{attempt}/lease.json"

    @staticmethod
    def released(attempt: int) -> str:
        return f"attempts/{attempt}/released.json"

    @staticmethod
    def pod(attempt: int, index: int) -> str:
        return f"attempts/{attempt}/pods/{index}.json"

    @staticmethod
    def start(attempt: int) -> str:
        """Names the step from which all pods of this attempt continue; made by index 0."""
        return f"attempts/{attempt}/start.json"

    @staticmethod
    def ready(attempt: int, index: int) -> str:
        """A pod has everything that its ranks need."""
        return f"attempts/{attempt}/ready/{index}.json"

    @staticmethod
    def results(attempt: int) -> str:
        return f"attempts/{attempt}/results/"

    @staticmethod
    def result(attempt: int, index: int) -> str:
        return f"attempts/{attempt}/results/{index}.json"

    @staticmethod
    def environment(attempt: int, index: int) -> str:
        """What each pod asked for and what it got: versions, devices, parameters, batch."""
        return f"attempts/{attempt}/results/{index}.environment.json"

    @staticmethod
    def log_tail(attempt: int, index: int) -> str:
        return f"attempts/{attempt}/results/{index}.log"

    @staticmethod
    def attempt_data(attempt: int) -> str:
        """Names the prepared data that this attempt trains on, for its peers and for the evaluation."""
        return f"attempts/{attempt}/data.json"

    @staticmethod
    def data(digest: str, attempt: int, name: str = "") -> str:
        return f"data/{digest}/{attempt}/{name}"

    @staticmethod
    def checkpoint(step: int, attempt: int, name: str = "") -> str:
        return f"checkpoints/{step:010d}/{attempt}/{name}"

    @staticmethod
    def part(step: int, attempt: int, node: int) -> str:
        return f"checkpoints/{step:010d}/{attempt}/parts/{node}.json"

    @staticmethod
    def wanted(step: int, attempt: int) -> str:
        """Index 0 is making a checkpoint of this step and waits for its peers' parts."""
        return f"checkpoints/{step:010d}/{attempt}/parts/wanted.json"

    @staticmethod
    def commit(step: int) -> str:
        return f"commits/{step:010d}.json"

    @staticmethod
    def metrics(attempt: int, segment: int) -> str:
        return f"metrics/{attempt}/{segment:06d}.jsonl"

    @staticmethod
    def events(attempt: int, name: str) -> str:
        """TensorBoard's files; not below `metrics/`, where readers expect lines."""
        return f"tensorboard/{attempt}/{name}"

    @staticmethod
    def export(attempt: int, name: str = "") -> str:
        return f"export/{attempt}/{name}"

    @staticmethod
    def evaluation(eval_id: str, name: str = "") -> str:
        return f"eval/{eval_id}/{name}"

    @staticmethod
    def shard(eval_id: str, model: str, shard: int) -> str:
        return f"eval/{eval_id}/shards/{model}-{shard:04d}.jsonl"

    @staticmethod
    def input(sha256: str, name: str = "") -> str:
        """Relative to `<storage.uri>/`, not to the run: staged inputs are shared by runs."""
        return f"inputs/{sha256}/{name}"

    @staticmethod
    def input_manifest(sha256: str) -> str:
        """Beside the input's files, since one of them may have any name; written last."""
        return f"inputs/{sha256}.json"
