"""What a spec leaves open and memory decides: strategy, checkpointing, and how a step's rows are divided.

A pure function of spec and facts: the laptop and the container choose the same.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

from sftjob.errors import SpecError
from sftjob.plan.estimate import Estimate, estimate
from sftjob.plan.facts import ModelFacts
from sftjob.plan.gpus import Gpu, find_gpu
from sftjob.plan.knobs import first_knob
from sftjob.plan.text import gib
from sftjob.resolved import ResolvedLaunch, ResolvedMethod, ResolvedTraining
from sftjob.spec import METHOD_RULES, JobSpec, Strategy, Training

ROWS: Final = 8
"""Rows of a step for each process, where nothing is said."""
TOKENS: Final = 16_384
"""Of a micro-batch: more of them make a GPU no faster."""
_COMFORT: Final = 0.95
"""Of a GPU's memory: estimates err, so more is taken only where the strategy offers nothing smaller."""
_NODE_SHARE: Final = 0.8
"""Of the node's memory that a pod has, for what is moved out of the GPU; data and the export need the rest."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    launch: ResolvedLaunch
    training: ResolvedTraining
    reasons: tuple[str, ...]
    """Why, for people to read."""


@dataclass(frozen=True, kw_only=True)
class _Open:
    """One way to fill what is open."""

    strategy: Strategy
    offload_optimizer: bool
    offload_param: bool
    checkpointing: bool
    micro: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class _Tried:
    way: _Open
    needs: Estimate
    choice: Choice


def choose(
    spec: JobSpec, facts: ModelFacts, method: ResolvedMethod, training: ResolvedTraining, launch: ResolvedLaunch
) -> Choice:
    """Fills what is open so that it fits: shares out as little as it can, then recomputes as little as it can.

    Args:
        spec: says what is open.
        facts: of the model.
        method: resolved.
        training: resolved, but for checkpointing and batches.
        launch: resolved, but for the strategy.

    Raises:
        SpecError: nothing that the spec allows fits; or the rows of a step cannot be divided.
    """
    gpu = find_gpu(launch.gpu)
    ways = list(_ways(spec, training, launch, known=gpu is not None))
    if launch.device == "cpu" or gpu is None:
        return _chosen(spec, ways[0], training, launch, _unknown(launch, ways[0]))
    too_much: list[_Tried] = []
    for _, group in groupby(ways, key=lambda way: (way.strategy, way.offload_optimizer, way.offload_param)):
        tried = list(_tried(group, spec, facts, method, training=training, launch=launch))
        fitting = [each for each in tried if each.needs.needed <= gpu.memory]
        roomy = [each for each in fitting if each.needs.needed <= _COMFORT * gpu.memory]
        if fitting:
            return _told((roomy or fitting)[0], ways[0], gpu)
        too_much += tried
    least = min(too_much, key=lambda each: each.needs.needed)
    if spec.resources.require_fit:
        raise too_large(
            least.needs, gpu, facts=facts, method=method, training=least.choice.training, launch=least.choice.launch
        )
    return replace(least.choice, reasons=("nothing that the spec allows fits; this needs least",))


def _ways(spec: JobSpec, training: ResolvedTraining, launch: ResolvedLaunch, *, known: bool) -> Iterator[_Open]:
    """From the fastest to the one that needs least memory."""
    checkpointing = spec.training.gradient_checkpointing
    blind = launch.device == "cuda" and not known
    choices = (checkpointing,) if checkpointing is not None else (blind,) if not known else (False, True)
    batches = batches_of(spec.training, launch.world_size, training.max_length, known=known)
    for strategy, offload_optimizer, offload_param in _strategies(spec, training, launch, known=known):
        for recompute in choices:
            for micro, steps in batches:
                yield _Open(
                    strategy=strategy,
                    offload_optimizer=offload_optimizer,
                    offload_param=offload_param,
                    checkpointing=recompute,
                    micro=micro,
                    steps=steps,
                )


def _strategies(
    spec: JobSpec, training: ResolvedTraining, launch: ResolvedLaunch, *, known: bool
) -> Iterator[tuple[Strategy, bool, bool]]:
    written = spec.launch
    if written.strategy != "auto":
        optimizer, weights = written.offload_optimizer or False, written.offload_param or False
        yield written.strategy, optimizer, weights
        return
    yield ("ddp" if launch.world_size > 1 else "single"), False, False
    allowed = METHOD_RULES[spec.method.type].strategies
    # ZeRO shares out states of 32 bits.
    if not known or training.optim != "adamw_torch_fused":
        return
    stages: tuple[Strategy, ...] = ("zero1", "zero2", "zero3")
    if launch.world_size > 1:
        yield from ((stage, False, False) for stage in stages if stage in allowed)
    yield from ((stage, True, False) for stage in stages[1:] if stage in allowed and written.offload_optimizer is None)
    untouched = written.offload_optimizer is None and written.offload_param is None
    # Four bits are moved by nothing that is known to work.
    if "zero3" in allowed and untouched and spec.method.type != "qlora":
        yield "zero3", True, True


def batches_of(training: Training, world_size: int, max_length: int, *, known: bool) -> list[tuple[int, int]]:
    """Micro-batches and steps of accumulation that give the rows of a step, the largest micro-batch first.

    Args:
        training: as it is written.
        world_size: processes.
        max_length: tokens of a row.
        known: memory is known, so that more than 8 rows may be tried at once, and fewer where they do not fit.

    Raises:
        SpecError: the rows of a step cannot be divided evenly.
    """
    micro, steps, batch = (
        training.per_device_train_batch_size,
        training.gradient_accumulation_steps,
        training.train_batch_size,
    )
    if batch is not None and batch % ((micro or steps or 1) * world_size):
        raise SpecError(
            f"{batch} rows a step cannot be divided among {world_size} processes"
            + (f" in micro-batches of {micro}" if micro else f" in {steps} steps" if steps else ""),
            field="training.train_batch_size",
            hint=f"use a multiple of {(micro or steps or 1) * world_size}",
        )
    if micro:
        return [(micro, batch // (micro * world_size) if batch else steps or 1)]
    if steps and batch:
        return [(batch // (steps * world_size), steps)]
    share = batch // world_size if batch else ROWS
    largest = max(1, TOKENS // max_length)
    largest = largest if known else min(ROWS, largest)
    sizes = [size for size in range(min(share, largest), 0, -1) if share % size == 0]
    sizes = sizes if known else sizes[:1]
    return [(size, steps or share // size) for size in sizes]


def _tried(
    ways: Iterable[_Open],
    spec: JobSpec,
    facts: ModelFacts,
    method: ResolvedMethod,
    *,
    training: ResolvedTraining,
    launch: ResolvedLaunch,
) -> Iterator[_Tried]:
    """The ways that the node has the memory for, with what they need of each GPU."""
    for way in ways:
        choice = _chosen(spec, way, training, launch, ())
        needs = estimate(facts, method, choice.training, choice.launch)
        if _fits_node(needs, way, spec, launch):
            yield _Tried(way=way, needs=needs, choice=choice)


def _chosen(
    spec: JobSpec, way: _Open, training: ResolvedTraining, launch: ResolvedLaunch, reasons: tuple[str, ...]
) -> Choice:
    shared: Mapping[str, Any] = {
        "strategy": way.strategy,
        "offload_optimizer": way.offload_optimizer,
        "offload_param": way.offload_param,
    }
    divided: Mapping[str, Any] = {
        "gradient_checkpointing": way.checkpointing,
        "per_device_train_batch_size": way.micro,
        "gradient_accumulation_steps": way.steps,
        "per_device_eval_batch_size": spec.training.per_device_eval_batch_size or way.micro,
    }
    return Choice(
        launch=launch.model_copy(update=shared), training=training.model_copy(update=divided), reasons=reasons
    )


def _unknown(launch: ResolvedLaunch, way: _Open) -> tuple[str, ...]:
    if launch.device == "cpu":
        return ()
    name = f"{launch.gpu} is not in the table" if launch.gpu else "`launch.gpu` names no GPU"
    return (f"{name}: nothing is known of its memory" + (", so activations are recomputed" * way.checkpointing),)


def _told(tried: _Tried, fastest: _Open, gpu: Gpu) -> Choice:
    way = tried.way
    reasons = [f"the fastest way that fits {gpu.name}, {gib(gpu.memory)}"]
    if way.strategy != fastest.strategy:
        reasons.append(f"{way.strategy}: a whole model with its states does not fit one GPU")
    if way.offload_optimizer:
        reasons.append("optimizer states in the node's memory, since they fit no GPU")
    if way.checkpointing and not fastest.checkpointing:
        reasons.append("activations are recomputed, since they do not fit")
    if not way.checkpointing and not fastest.checkpointing:
        reasons.append("activations fit and are not recomputed")
    if way.micro < fastest.micro:
        reasons.append(f"micro-batches of {way.micro}: {fastest.micro} rows at once do not fit so")
    return replace(tried.choice, reasons=tuple(reasons))


def _fits_node(needs: Estimate, way: _Open, spec: JobSpec, launch: ResolvedLaunch) -> bool:
    """Whether the node's memory takes what the planner would move there; what a person moves is not questioned."""
    if spec.launch.strategy != "auto" or not way.offload_optimizer:
        return True
    return sum(needs.host.values()) * launch.processes_per_node <= _NODE_SHARE * quantity(spec.resources.memory)


def quantity(text: str) -> float:
    """Bytes of a Kubernetes quantity."""
    units = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    digits = text.rstrip("mkMGTi")
    return float(digits) * units.get(text[len(digits) :], 1.0)


def too_large(
    needs: Estimate,
    gpu: Gpu,
    *,
    facts: ModelFacts,
    method: ResolvedMethod,
    training: ResolvedTraining,
    launch: ResolvedLaunch,
) -> SpecError:
    """What to say where a job needs more than its GPU has: both sizes, and what to do first."""
    knob = first_knob(facts, method, training, launch)
    turn = f"`{knob.field}: {knob.value}` would save {gib(knob.gain)}; or " if knob else ""
    return SpecError(
        f"{gib(needs.needed)} are needed, {gpu.name} has {gib(gpu.memory)}",
        field="launch.gpu",
        hint=f"{turn}name a larger GPU; `resources.require_fit: false` tries all the same",
    )
