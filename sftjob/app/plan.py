"""`sftjob plan`: what a job needs, whether it fits, and what it takes; nothing is loaded and nothing is started."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sftjob.app.model_config import read_facts
from sftjob.errors import SftjobError, SpecError
from sftjob.plan import Estimate, Gpu, ModelFacts, estimate_of, find_gpu
from sftjob.plan.choose import too_large
from sftjob.plan.flops import EFFICIENCY, Flops, flops_per_token
from sftjob.plan.gpus import is_shared
from sftjob.plan.inventory import inventory
from sftjob.plan.knobs import Knob, knobs
from sftjob.resolve import ResolvedJob, resolve_with_reasons
from sftjob.spec import JobSpec, LoadedSpec


@dataclass(frozen=True, kw_only=True)
class Work:
    """What training takes; None where it cannot be known."""

    steps: int | None
    tokens: int | None
    """Of the whole training, padding included."""
    flops_per_token: Flops
    step_flops: float
    """Of the model, all processes."""
    hours: tuple[float, float] | None
    """At the better and at the worse efficiency that was assumed; evaluation and checkpoints come on top."""
    cost: tuple[float, float] | None
    """In the currency of the price."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    job: ResolvedJob
    estimate: Estimate
    gpu: Gpu | None
    shared: bool
    """Other pods may take memory of the same GPU."""
    reasons: tuple[str, ...]
    """Why the planner chose what the spec leaves open."""
    guesses: tuple[str, ...]
    """What was taken for granted about the model."""
    knobs: tuple[Knob, ...]
    work: Work

    @property
    def fits(self) -> bool | None:
        """None where the GPU's memory is not known, and on a CPU."""
        return None if self.gpu is None else self.estimate.needed <= self.gpu.memory


def plan(
    loaded: LoadedSpec,
    *,
    config: Path | None = None,
    price: float | None = None,
    rows: int | None = None,
    tokens: int | None = None,
) -> Plan:
    """Plans a job.

    Args:
        loaded: the spec.
        config: config.json of the model, where the spec names none on this machine.
        price: of a GPU-hour.
        rows: rows of the training data.
        tokens: tokens of the training data; with `rows` as well both count, otherwise rows are taken to be full.

    Raises:
        SftjobError: the spec or the price is wrong, or the model's config is not there.
    """
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise SpecError(f"{price} is no price", field="--price-per-gpu-hour", hint="give what a GPU costs for an hour")
    try:
        return plan_of(loaded.spec, read_facts(loaded, config), price=price, rows=rows, tokens=tokens)
    except SftjobError as error:
        raise loaded.located(error) from error


def plan_of(
    spec: JobSpec,
    facts: ModelFacts,
    *,
    price: float | None = None,
    rows: int | None = None,
    tokens: int | None = None,
) -> Plan:
    """The same for facts that are there already. What does not fit is planned as well: `fits` says so."""
    lenient = spec.resources.model_copy(update={"require_fit": False})
    job, reasons = resolve_with_reasons(spec.model_copy(update={"resources": lenient}), facts)
    gpu = find_gpu(job.launch.gpu)
    return Plan(
        job=job,
        estimate=estimate_of(job),
        gpu=gpu,
        shared=is_shared(job.launch.gpu),
        reasons=reasons,
        guesses=inventory(facts).guesses,
        knobs=knobs(facts, job.method, job.training, job.launch),
        work=_work(job, gpu, price=price, rows=rows, tokens=tokens),
    )


def check_fits(planned: Plan) -> None:
    """Raises `SpecError` where the job needs more than its GPU has."""
    if planned.fits is False and planned.gpu is not None:
        job = planned.job
        raise too_large(
            planned.estimate,
            planned.gpu,
            facts=job.facts,
            method=job.method,
            training=job.training,
            launch=job.launch,
        )


def as_json(planned: Plan) -> str:
    """Everything that is in the table, for programs. Sizes are bytes."""
    needs, launch, training = planned.estimate, planned.job.launch, planned.job.training
    document: dict[str, Any] = {
        "run_id": planned.job.run_id,
        "fits": planned.fits,
        "gpu": None if planned.gpu is None else asdict(planned.gpu),
        "needed": needs.needed,
        "tensors": needs.tensors,
        "moment": needs.moment,
        "moments": {name: dict(components) for name, components in needs.moments.items()},
        "overhead": dict(needs.overhead),
        "host": dict(needs.host),
        "parameters": needs.parameters,
        "trainable": needs.trainable,
        "chosen": {
            "strategy": launch.strategy,
            "offload_optimizer": launch.offload_optimizer,
            "offload_param": launch.offload_param,
            "gradient_checkpointing": training.gradient_checkpointing,
            "per_device_train_batch_size": training.per_device_train_batch_size,
            "gradient_accumulation_steps": training.gradient_accumulation_steps,
        },
        "reasons": planned.reasons,
        "guesses": planned.guesses,
        "knobs": [asdict(knob) for knob in planned.knobs],
        "work": asdict(planned.work) | {"efficiency": EFFICIENCY},
    }
    return json.dumps(document, indent=2)


def _work(job: ResolvedJob, gpu: Gpu | None, *, price: float | None, rows: int | None, tokens: int | None) -> Work:
    training = job.training
    each = flops_per_token(
        job.facts, job.method, length=training.max_length, checkpointing=training.gradient_checkpointing
    )
    step_tokens = job.rows_per_step * training.max_length
    steps = _steps(job, rows, tokens)
    whole = _tokens(job, steps, rows, tokens)
    hours = cost = None
    if whole is not None and gpu is not None and gpu.bf16_flops and training.precision == "bf16":
        rate = gpu.bf16_flops * job.launch.world_size * 3600
        computed = (each.model + each.recomputed) * whole
        # Recomputing is work that the efficiency of public runs, which counts the model's alone, leaves out.
        hours = computed / (rate * EFFICIENCY[1]), computed / (rate * EFFICIENCY[0])
        if price is not None:
            cost = hours[0] * price * job.launch.world_size, hours[1] * price * job.launch.world_size
    return Work(
        steps=steps,
        tokens=whole,
        flops_per_token=each,
        step_flops=each.model * step_tokens,
        hours=hours,
        cost=cost,
    )


def _steps(job: ResolvedJob, rows: int | None, tokens: int | None) -> int | None:
    if job.training.max_steps > 0:
        return job.training.max_steps
    if rows is None and tokens is not None:
        rows = math.ceil(tokens / job.training.max_length)
    return None if rows is None else math.ceil(job.training.num_train_epochs * rows / job.rows_per_step)


def _tokens(job: ResolvedJob, steps: int | None, rows: int | None, tokens: int | None) -> int | None:
    """Of the data where they are known; otherwise rows are taken to be full."""
    if tokens is not None and job.training.max_steps <= 0:
        return math.ceil(job.training.num_train_epochs * tokens)
    return None if steps is None else steps * job.rows_per_step * job.training.max_length
