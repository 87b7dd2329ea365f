"""A plan as people read it."""

from collections.abc import Iterator

from sftjob.app.plan import Plan
from sftjob.plan.flops import EFFICIENCY
from sftjob.plan.text import gib
from sftjob.report.words import plural


def plan_lines(planned: Plan) -> Iterator[str]:
    """The whole plan."""
    yield verdict(planned)
    yield from _chosen(planned)
    yield ""
    yield from _table(planned)
    yield ""
    yield from _knobs(planned)
    yield from _work(planned)


def verdict(planned: Plan) -> str:
    """Whether it fits, in one line."""
    job, needs = planned.job, planned.estimate
    about = f"{job.method.type}, {job.launch.strategy}{_moved(planned)}, {_recomputing(planned)}"
    if job.launch.device == "cpu":
        return f"ok       about {gib(needs.needed)} of memory for tensors in each process ({about})"
    if planned.gpu is None:
        name = f"{job.launch.gpu} is not in the table of GPUs" if job.launch.gpu else "`launch.gpu` names no GPU"
        return f"unknown  whether it fits, {name}: about {gib(needs.needed)} are needed on each ({about})"
    fits = "ok       fits" if planned.fits else "wrong    does not fit"
    shared = "; other pods may share it" if planned.shared else ""
    return f"{fits} {planned.gpu.name}: {gib(needs.needed)} of {gib(planned.gpu.memory)} ({about}){shared}"


def _moved(planned: Plan) -> str:
    launch = planned.job.launch
    moved = [name for name, on in (("optimizer", launch.offload_optimizer), ("weights", launch.offload_param)) if on]
    return f", {' and '.join(moved)} in the node's memory" if moved else ""


def _recomputing(planned: Plan) -> str:
    return "activations recomputed" if planned.job.training.gradient_checkpointing else "nothing recomputed"


def _chosen(planned: Plan) -> Iterator[str]:
    job, needs = planned.job, planned.estimate
    training = job.training
    yield (
        f"trains   {needs.trainable:,} of {needs.parameters:,} parameters, {job.launch.world_size} x "
        f"{job.launch.gpu or job.launch.device}"
    )
    times = plural(training.gradient_accumulation_steps, "time")
    yield (
        f"step     {job.rows_per_step} rows: {training.per_device_train_batch_size} at once, {times}, in "
        f"{plural(job.launch.world_size, 'process', 'processes')}; {training.max_length} tokens a row"
    )
    for reason in planned.reasons:
        yield f"chosen   {reason}"
    for guess in planned.guesses:
        yield f"guess    {guess}"
    if planned.gpu is not None and not planned.gpu.bf16_flops:
        yield f"note     {planned.gpu.name} computes no bf16, which is emulated at a fraction of its speed"


def _table(planned: Plan) -> Iterator[str]:
    needs = planned.estimate
    place = "GPU" if needs.on_gpu else "process"
    yield f"Memory of each {place}, at the worst moment ({needs.moment}):"
    for name, size in {**needs.components, **needs.overhead}.items():
        yield f"  {name:<28}{gib(size):>12}"
    yield f"  {'together':<28}{gib(needs.needed):>12}"
    for name, size in needs.host.items():
        yield f"  {'in node memory: ' + name:<50}{gib(size):>12}"
    others = (
        f"{name} {gib(sum(components.values()))}" for name, components in needs.moments.items() if name != needs.moment
    )
    yield f"  other moments: {', '.join(others)}"


def _knobs(planned: Plan) -> Iterator[str]:
    if not planned.knobs:
        return
    yield "To need less, in this order; each by itself, with all else as it is above:"
    for knob in planned.knobs:
        yield f"  {knob.field + ': ' + knob.value:<46}{'-' + gib(knob.gain):>12}  {knob.cost}"
    yield ""


def _work(planned: Plan) -> Iterator[str]:
    work = planned.work
    each = work.flops_per_token
    recomputed = f", {each.recomputed / 1e9:,.1f} more are recomputed" if each.recomputed else ""
    yield f"work     {each.model / 1e9:,.1f} GFLOP a token{recomputed}; {work.step_flops / 1e12:,.1f} TFLOP a step"
    if work.tokens is None:
        yield "time     unknown: give --rows or --tokens of the training data"
        return
    steps = f"{work.steps:,} steps, " if work.steps else ""
    if work.hours is None:
        yield f"time     unknown: {steps}{work.tokens:,} tokens; no bf16 rate is known of what computes them"
        return
    low, high = EFFICIENCY
    top = "evaluation and updates in the node's memory come" if _moved(planned) else "evaluation comes"
    yield (
        f"time     {_hours(work.hours[0])} to {_hours(work.hours[1])}: {steps}{work.tokens:,} tokens, if {low:.0%} to "
        f"{high:.0%} of the data sheet's bf16 rate is reached, as in public runs; {top} on top"
    )
    if work.cost is not None:
        yield f"cost     {work.cost[0]:,.2f} to {work.cost[1]:,.2f} for the GPUs"


def _hours(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:,.1f} h"
