"""A run's status as lines for people."""

from collections.abc import Iterator

from sftjob.app.status import Status, age, pod_order, restarts
from sftjob.cluster.objects import Pod
from sftjob.cluster.phase import Phase
from sftjob.contract import Component
from sftjob.report import words

_PODS = 16
"""Of more than so many only those are shown that do not simply run."""


def status_lines(status: Status) -> Iterator[str]:
    """`phase    training, 2 of 2 pods run` and the like."""
    run = status.run
    revision = f"revision {run.revision}, " if run.revision else ""
    yield f"run      {run.run_id} ({revision}namespace {run.namespace})"
    yield f"phase    {phase_text(status)}"
    if status.why:
        yield f"why      {status.why.reason}"
        if status.why.hint:
            yield f"next     {status.why.hint}"
    yield from progress_lines(status)
    if count := restarts(status):
        yield f"restarts {count}"
    if run.other_revisions:
        yield f"also     objects of revision {', '.join(run.other_revisions)} are still there"
    if status.store_uri:
        yield f"store    {status.store_uri}"
    yield from _pods(run.pods)


def phase_text(status: Status) -> str:
    """Where it stands, in a few words."""
    now = status.state
    evaluation = now.component is Component.EVAL
    match now.phase:
        case Phase.FAILED:
            what = "evaluation failed" if evaluation else "failed"
            code = f" ({now.exit_code})" if now.exit_code is not None else ""
            return f"{what}{code}: {now.reason}" if now.reason else f"{what}{code}"
        case Phase.PENDING | Phase.QUEUED if evaluation:
            return f"trained; the evaluation is {now.phase}"
        case Phase.TRAINED:
            return "trained; the evaluation has not started"
        case Phase.STARTING:
            pods = [pod for pod in status.run.pods_of(status.run.train) if not pod.ended]
            running = sum(pod.started for pod in pods)
            return f"starting, {running} of {words.plural(len(pods), 'pod')} run"
        case Phase.STOPPED:
            return "stopped; submitted again, it continues"
        case _:
            return now.phase.value


def progress_lines(status: Status) -> Iterator[str]:
    """Step, loss and the newest checkpoint, as far as the store tells."""
    progress = status.progress
    if progress is None:
        return
    if progress.step is not None:
        yield f"step     {_step(progress.step, progress.steps)}{_left(progress.seconds_left, status.state.phase)}"
    if progress.loss is not None:
        held_out = ""
        if progress.held_out_loss is not None:
            held_out = f"; held out {words.loss(progress.held_out_loss)} at step {progress.held_out_step}"
        yield f"loss     {words.loss(progress.loss)}{held_out}"
    if progress.committed is None:
        if progress.attempt and not progress.trained:
            yield "saved    no checkpoint yet"
        return
    when = f", {words.duration(age(progress.committed_at))} ago" if progress.committed_at else ""
    yield f"saved    step {words.count(progress.committed)}{when}"


def _step(step: int, steps: int | None) -> str:
    if not steps:
        return words.count(step)
    return f"{words.count(step)} of {words.count(steps)} ({words.share(step / steps)})"


def _left(seconds: float | None, phase: Phase) -> str:
    return f", {words.duration(seconds)} left" if seconds is not None and phase is Phase.TRAINING else ""


def _pods(pods: tuple[Pod, ...]) -> Iterator[str]:
    ordered = sorted(pods, key=pod_order)
    shown = ordered if len(ordered) <= _PODS else [pod for pod in ordered if pod.phase != "Running"][:_PODS]
    for pod in shown:
        yield f"pod      {pod.name}  {_pod(pod)}"
    if len(shown) < len(ordered):
        yield f"pods     {len(ordered) - len(shown)} more"


def _pod(pod: Pod) -> str:
    where = f" on {pod.node}" if pod.node else ""
    if pod.deleting:
        return f"is stopping{where}"
    if pod.terminated and pod.ended:
        end = pod.terminated
        code = "" if end.exit_code == 0 else f" with {end.exit_code}{f': {end.told}' if end.told else ''}"
        disrupted = f" ({pod.disrupted})" if pod.disrupted else ""
        return f"ended{code}{disrupted}{where}"
    return f"{pod.reason or pod.phase}{where}".lower() if pod.started or pod.ended else f"has not started{where}"
