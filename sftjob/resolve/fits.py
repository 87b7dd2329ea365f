"""Combinations that cannot work, refused before a GPU is asked for, each with its reason."""

from collections.abc import Iterator
from typing import Final

from sftjob.errors import Problem, SpecError
from sftjob.plan import ModelFacts
from sftjob.resolved import ResolvedFull, ResolvedLaunch, ResolvedMethod, ResolvedTraining
from sftjob.spec import METHOD_RULES, Export

_HEADS: Final = frozenset({"lm_head", "embed_out"})
_EMBEDDINGS: Final = frozenset({"embed_tokens", "wte", "embed_in"})
_LINEAR: Final = frozenset(
    "q_proj k_proj v_proj o_proj qkv_proj gate_proj up_proj down_proj gate_up_proj fc1 fc2".split()  # noqa: SIM905
)
"""Names that linear layers have in many models. Other names are looked up in the model itself, when it is loaded."""


def check_combination(
    facts: ModelFacts, method: ResolvedMethod, training: ResolvedTraining, launch: ResolvedLaunch, export: Export
) -> None:
    """Raises `SpecError` with every combination that cannot work."""
    problems = (
        *_method_problems(facts, method, launch),
        *_layer_problems(facts, method, launch),
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


def _layer_problems(facts: ModelFacts, method: ResolvedMethod, launch: ResolvedLaunch) -> Iterator[Problem]:
    """What the names of layers tell before there is a model to look them up in."""
    if isinstance(method, ResolvedFull):
        return
    targets = () if method.target_modules == "all-linear" else method.target_modules
    saved = {name.rpartition(".")[2] for name in method.modules_to_save}
    if method.type == "qlora" and (whole := sorted(saved & _LINEAR)):
        yield Problem(
            field="method.modules_to_save",
            reason=f"{whole[0]} is a linear layer, which qlora holds in four bits that gradients cannot change",
            hint="give it an adapter in method.target_modules, or use lora",
        )
    if facts.tie_word_embeddings and (heads := sorted({name.rpartition(".")[2] for name in targets} & _HEADS)):
        yield Problem(
            field="method.target_modules",
            reason=f"{heads[0]} has the embedding's weights in this model; an adapter would part them",
            hint=f"name {heads[0]} in method.modules_to_save, which trains both as one",
        )
    if facts.tie_word_embeddings and launch.zero_stage == 3 and (both := sorted(saved & (_HEADS | _EMBEDDINGS))):
        yield Problem(
            field="method.modules_to_save",
            reason=f"{both[0]} is embedding and head at once in this model, which ZeRO-3 cannot copy as one",
            hint="use zero2, or leave it out",
        )
    if facts.num_experts and (experts := next((name for name in targets if "experts" in name.split(".")), None)):
        yield from _expert_problems(experts, method.lora_dropout, launch, use_dora=method.use_dora)


def _expert_problems(name: str, lora_dropout: float, launch: ResolvedLaunch, *, use_dora: bool) -> Iterator[Problem]:
    reason = f"{name} holds a matrix for each expert, whose adapters know no"
    if lora_dropout:
        yield Problem(field="method.lora_dropout", reason=f"{reason} dropout", hint="write 0")
    if use_dora:
        yield Problem(field="method.use_dora", reason=f"{reason} DoRA", hint="leave it out")
    if launch.zero_stage == 3:
        yield Problem(
            field="method.target_modules",
            reason=f"adapters of {name} are added to all experts' weights in every step, of which ZeRO-3 holds shares",
            hint="use zero2, or leave experts out",
        )


def _quantised_problems(
    method: ResolvedMethod, training: ResolvedTraining, launch: ResolvedLaunch
) -> Iterator[Problem]:
    if method.type != "qlora" or launch.zero_stage != 3:
        return
    if method.bnb_4bit_quant_storage != training.precision:
        yield Problem(
            field="method.bnb_4bit_quant_storage",
            reason=f"ZeRO-3 shares out tensors of one type; {method.bnb_4bit_quant_storage} is not that of the other "
            f"weights, {training.precision}",
            hint=f"write {training.precision}, or leave it out",
        )
    if method.use_dora:
        yield Problem(
            field="method.use_dora",
            reason="DoRA measures whole weights, which PEFT cannot gather from four-bit shares under ZeRO-3",
            hint="use zero2, or leave it out",
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
