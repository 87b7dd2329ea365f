"""What the gate does about what it has seen. Pure: the whole table is tested without a cluster."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from sftjob.contract import ExitCode
from sftjob.gate.state import EvalState, Marks, Phase, TrainState

PATIENCE_SECONDS: Final = 120.0
"""Objects are applied one after another, in any order, and rights come last."""
SEVERAL_LOOKS: Final = 6
"""An object is gone when so many looks in a row, a minute, have missed it: who deletes and applies again needs a
moment, and so does an API server that has just started until it serves JobSets."""


class Act(Enum):
    WAIT = "wait"
    RESUME = "resume"
    """Set `suspend: false` on the eval Job."""
    ENQUEUE = "enqueue"
    """Give the eval Job its queue: `suspend` is Kueue's."""
    DELETE = "delete"
    """Delete the eval Job, and end."""
    END = "end"


@dataclass(frozen=True, kw_only=True)
class Past:
    """What one look cannot know."""

    seconds: float = 0.0
    """Since the gate began."""
    train_looks: int = 1
    """In a row, this one included, in which the training was in this phase."""
    eval_looks: int = 1
    train_seen: bool = False
    eval_seen: bool = False


@dataclass(frozen=True)
class Decision:
    act: Act
    reason: str
    """A line for people: what was seen, and what follows."""
    code: ExitCode = ExitCode.DONE
    """With which the gate ends; for DELETE and END."""


def decide(train: TrainState, evaluation: EvalState, marks: Marks, past: Past, *, queue: str = "") -> Decision:
    """The gate's rules, the first that applies wins.

    1. An evaluation that has ended, or is gone, leaves nothing to do.
    2. `_SUCCESS` wins over whatever the train Job says: the evaluation is resumed whenever it is found suspended.
    3. Training that has failed, is gone, or is complete without `_SUCCESS`, takes the eval Job with it.
    4. Everything else is waited for.

    Args:
        queue: Kueue's queue, which decides when the evaluation starts; empty without Kueue.
    """
    if evaluation.phase in (Phase.COMPLETE, Phase.FAILED):
        why = f" ({evaluation.why})" if evaluation.why else ""
        return Decision(Act.END, f"the evaluation is {evaluation.phase.value}{why}")
    if evaluation.phase is Phase.ABSENT and past.eval_seen and past.eval_looks >= SEVERAL_LOOKS:
        return Decision(Act.END, "the eval Job is gone: nothing is left to start")
    if marks.success:
        return _after_success(evaluation, past, queue)
    if failure := _failure(train, marks, past):
        return failure
    if _never_came(evaluation, past):
        return _no_evaluation()
    return Decision(Act.WAIT, _waiting(train))


def _after_success(evaluation: EvalState, past: Past, queue: str) -> Decision:
    done = "training is done (_SUCCESS is there)"
    if evaluation.phase is Phase.ABSENT:
        return _no_evaluation() if _never_came(evaluation, past) else Decision(Act.WAIT, f"{done}; no eval Job yet")
    if evaluation.phase is Phase.RUNNING:
        return Decision(Act.WAIT, f"{done}; the evaluation is under way")
    if not queue:
        return Decision(Act.RESUME, f"{done}; the eval Job is suspended: it is resumed")
    if evaluation.queue != queue:
        return Decision(Act.ENQUEUE, f"{done}; the eval Job joins queue {queue}")
    return Decision(Act.WAIT, f"{done}; the eval Job waits in queue {queue}")


def _failure(train: TrainState, marks: Marks, past: Past) -> Decision | None:
    """Why no evaluation will come; None as long as one may."""
    if train.phase is Phase.FAILED:
        return Decision(Act.DELETE, f"training has failed ({train.why or 'no reason given'}): the eval Job is deleted")
    # That of an earlier Job says nothing of this one, and without a Job there is nobody to compare it with.
    if train.uid and marks.failed and marks.failed.owner == train.uid:
        why = f"exit code {marks.failed.exit_code}: {marks.failed.reason}"
        return Decision(Act.DELETE, f"training has failed ({why}): the eval Job is deleted")
    settled = past.train_looks >= SEVERAL_LOOKS
    if train.phase is Phase.COMPLETE and settled:
        reason = "training is complete, but _SUCCESS is not in the store: is it the one that the gate is told?"
        return Decision(Act.DELETE, f"{reason} The eval Job is deleted", ExitCode.INPUT)
    if train.phase is Phase.ABSENT and past.train_seen and settled:
        return Decision(Act.DELETE, "training was deleted before it was done: the eval Job is deleted")
    if train.phase is Phase.ABSENT and not past.train_seen and past.seconds >= PATIENCE_SECONDS:
        reason = f"there is no training to wait for after {PATIENCE_SECONDS:.0f} s: the eval Job is deleted"
        return Decision(Act.DELETE, reason, ExitCode.INPUT)
    return None


def _never_came(evaluation: EvalState, past: Past) -> bool:
    return evaluation.phase is Phase.ABSENT and not past.eval_seen and past.seconds >= PATIENCE_SECONDS


def _no_evaluation() -> Decision:
    reason = f"there is no eval Job to start after {PATIENCE_SECONDS:.0f} s; apply the run's manifests again"
    return Decision(Act.END, reason, ExitCode.INPUT)


def _waiting(train: TrainState) -> str:
    """How training stands, as far as its Job tells: the gate may not look at pods."""
    if train.phase is Phase.ABSENT:
        return "training: not there"
    if train.phase is Phase.SUSPENDED:
        return "training: suspended; whoever did that, or a queue, starts it"
    if train.phase is Phase.COMPLETE:
        return "training: complete; _SUCCESS is awaited"
    pods = f"{train.ready} of {train.pods} pods run"
    return f"training: {pods}" if train.ready else f"training: {pods}; `kubectl describe pods` says why, if it stays so"
