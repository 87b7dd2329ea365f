"""Settings that save memory, the cheapest in time first, each with the bytes that it would give."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sftjob.plan.estimate import estimate
from sftjob.plan.facts import ModelFacts
from sftjob.resolved import ResolvedFull, ResolvedLaunch, ResolvedLora, ResolvedMethod, ResolvedQlora, ResolvedTraining


@dataclass(frozen=True, kw_only=True)
class Knob:
    field: str
    value: str
    """What to write there."""
    gain: int
    """Bytes on each GPU."""
    cost: str
    """What it takes, in words."""


@dataclass(frozen=True)
class _Turned:
    text: tuple[str, str, str]
    """Field, value and cost."""
    method: ResolvedMethod
    training: ResolvedTraining
    launch: ResolvedLaunch


def knobs(
    facts: ModelFacts, method: ResolvedMethod, training: ResolvedTraining, launch: ResolvedLaunch
) -> tuple[Knob, ...]:
    """Every knob that would give something, in the order in which to turn them."""
    now = estimate(facts, method, training, launch).needed
    turned = (
        (each, now - estimate(facts, each.method, each.training, each.launch).needed)
        for each in _turns(facts, method, training, launch)
    )
    return tuple(
        Knob(field=each.text[0], value=each.text[1], gain=gain, cost=each.text[2]) for each, gain in turned if gain > 0
    )


def first_knob(
    facts: ModelFacts, method: ResolvedMethod, training: ResolvedTraining, launch: ResolvedLaunch
) -> Knob | None:
    """The one to turn first; None where nothing would help."""
    return next(iter(knobs(facts, method, training, launch)), None)


def _turns(
    facts: ModelFacts, method: ResolvedMethod, training: ResolvedTraining, launch: ResolvedLaunch
) -> Iterator[_Turned]:
    yield from _batches(method, training, launch)
    yield from _launches(method, training, launch)
    if training.optim == "adamw_torch_fused" and launch.device == "cuda" and not launch.zero_stage:
        eighth = training.model_copy(update={"optim": "adamw_8bit"})
        yield _Turned(("training.optim", "adamw_8bit", "states rounded to 8 bits"), method, eighth, launch)
    yield from _methods(facts, method, training, launch)
    if training.max_length > 1:
        half = training.max_length // 2
        shorter = training.model_copy(update={"max_length": half})
        yield _Turned(("training.max_length", str(half), "longer rows are cut or left out"), method, shorter, launch)


def _batches(method: ResolvedMethod, training: ResolvedTraining, launch: ResolvedLaunch) -> Iterator[_Turned]:
    micro, steps = training.per_device_train_batch_size, training.gradient_accumulation_steps
    if micro > 1:
        smaller = next(size for size in range(micro // 2, 0, -1) if micro % size == 0)
        halved = training.model_copy(
            update={
                "per_device_train_batch_size": smaller,
                "gradient_accumulation_steps": steps * micro // smaller,
            }
        )
        cost = "smaller matrices, more steps of accumulation"
        yield _Turned(("training.per_device_train_batch_size", str(smaller), cost), method, halved, launch)
    if not training.gradient_checkpointing:
        recomputed = training.model_copy(update={"gradient_checkpointing": True})
        cost = "a third to a half more time"
        yield _Turned(("training.gradient_checkpointing", "true", cost), method, recomputed, launch)


def _launches(method: ResolvedMethod, training: ResolvedTraining, launch: ResolvedLaunch) -> Iterator[_Turned]:
    if training.optim != "adamw_torch_fused":
        return
    if launch.world_size > 1:
        for stage in range(launch.zero_stage + 1, 4):
            shared = _with(launch, strategy=f"zero{stage}")
            yield _Turned(("launch.strategy", f"zero{stage}", "more traffic between GPUs"), method, training, shared)
    if launch.zero_stage and launch.device == "cuda" and not launch.offload_optimizer:
        moved = _with(launch, offload_optimizer=True)
        yield _Turned(
            ("launch.offload_optimizer", "true", f"{launch.strategy}, with updates in the node's memory"),
            method,
            training,
            moved,
        )
    # Four bits are moved by nothing that is known to work.
    whole = not isinstance(method, ResolvedQlora)
    if launch.zero_stage == 3 and launch.device == "cuda" and whole and not launch.offload_param:
        moved = _with(launch, offload_param=True)
        yield _Turned(
            ("launch.offload_param", "true", "zero3, with weights that come over the bus"), method, training, moved
        )


def _methods(
    facts: ModelFacts, method: ResolvedMethod, training: ResolvedTraining, launch: ResolvedLaunch
) -> Iterator[_Turned]:
    if isinstance(method, ResolvedFull):
        lora = ResolvedLora(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear")
        yield _Turned(("method.type", "lora", "only adapters are trained"), lora, training, launch)
    elif isinstance(method, ResolvedLora) and not facts.num_experts:
        shorter = ResolvedQlora(
            **method.model_dump(exclude={"type"}), bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
        )
        yield _Turned(("method.type", "qlora", "a rounded base, some time for its decoding"), shorter, training, launch)


def _with(launch: ResolvedLaunch, **update: Any) -> ResolvedLaunch:
    return launch.model_copy(update=update)
