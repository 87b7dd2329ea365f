"""Combinations that cannot work, refused before a GPU is asked for, each with its reason."""

from collections.abc import Iterator

from sftjob.errors import Problem, SpecError
from sftjob.plan import ModelFacts
from sftjob.resolved import ResolvedLaunch, ResolvedMethod, ResolvedTraining
from sftjob.spec import METHOD_RULES, Export


def check_combination(
    facts: ModelFacts, method: ResolvedMethod, training: ResolvedTraining, launch: ResolvedLaunch, export: Export
) -> None:
    """Raises `SpecError` with every combination that cannot work."""
    problems = (
        *_method_problems(facts, method, launch),
        *_quantised_problems(method, training, launch),
        *_optimizer_problems(training, launch),
        *_offload_problems(launch),
        *_export_problems(method, export),
    )
    if problems:
        raise SpecError(problems)


def _method_problems(facts: ModelFacts, method: ResolvedMethod, launch: ResolvedLaunch) -> Iterator[Problem]:
    rule = METHOD_RULES[method.type]
    if launch.strategy not in rule.strategies:
        yield Problem(
            field="launch.strategy",
            reason=f"{method.type} does not run under {launch.strategy}",
            hint=f"use one of {', '.join(sorted(rule.strategies))}",
        )
    if facts.num_experts and not rule.experts:
        yield Problem(
            field="method.type",
            reason=f"{facts.architecture} holds its {facts.num_experts} experts in 3-D parameters, which bitsandbytes "
            "does not quantise: most of the model would stay as it is",
            hint="use lora",
        )


def _quantised_problems(
    method: ResolvedMethod, training: ResolvedTraining, launch: ResolvedLaunch
) -> Iterator[Problem]:
    if method.type != "qlora" or launch.zero_stage != 3 or method.bnb_4bit_quant_storage == training.precision:
        return
    yield Problem(
        field="method.bnb_4bit_quant_storage",
        reason=f"ZeRO-3 shares out tensors of one type; {method.bnb_4bit_quant_storage} is not that of the other "
        f"weights, {training.precision}",
        hint=f"write {training.precision}, or leave it out",
    )


def _optimizer_problems(training: ResolvedTraining, launch: ResolvedLaunch) -> Iterator[Problem]:
    if training.optim == "adamw_torch_fused":
        return
    if launch.device == "cpu":
        yield Problem(
            field="training.optim",
            reason=f"{training.optim} is made for GPUs, this job trains on a CPU",
            hint="write adamw_torch_fused, or leave it out",
        )
    elif launch.zero_stage:
        yield Problem(
            field="training.optim",
            reason=f"{launch.strategy} shares out states of 32 bits; {training.optim} keeps others",
            hint="write adamw_torch_fused, or `launch.strategy: ddp`; `launch.offload_optimizer` saves memory as well",
        )


def _offload_problems(launch: ResolvedLaunch) -> Iterator[Problem]:
    for name in ("offload_optimizer", "offload_param"):
        if getattr(launch, name) and launch.device == "cpu":
            yield Problem(
                field=f"launch.{name}",
                reason="without a GPU everything is in the node's memory already",
                hint="leave it out",
            )


def _export_problems(method: ResolvedMethod, export: Export) -> Iterator[Problem]:
    if export.merge and not METHOD_RULES[method.type].adapter:
        yield Problem(
            field="export.merge",
            reason=f"{method.type} exports a whole model; there is no adapter to merge",
            hint="leave it out",
        )
