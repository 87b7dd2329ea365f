"""Which layers of a model get adapters, and which are trained whole: the spec's names, looked up and checked."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal

from torch import nn
from transformers import PreTrainedModel

from sftjob.errors import ConfigurationError, Problem
from sftjob.methods.shards import shape_of

ALL_LINEAR: Final = "all-linear"
_LINEAR: Final = frozenset({"Linear", "Conv1D", "Linear4bit"})
"""Classes that compute `x @ W` and nothing else. A router may be derived from one of them and return more."""
_TARGETS: Final = "method.target_modules"
_SAVED: Final = "method.modules_to_save"
_SHOWN: Final = 12


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Full names, in the order of the model."""

    linear: tuple[str, ...]
    """Linear layers that get an adapter."""
    experts: tuple[str, ...]
    """3-D parameters, one matrix an expert, that get an adapter for each of them."""
    saved: tuple[str, ...]
    """Modules of which a copy is trained whole."""


def find_targets(
    model: PreTrainedModel,
    target_modules: Literal["all-linear"] | Sequence[str],
    modules_to_save: Sequence[str],
    *,
    added_tokens: bool,
) -> Targets:
    """Looks the names of a spec up in a model: a name stands for every module whose full name ends with it.

    Args:
        model: without adapters.
        target_modules: `all-linear` stands for every linear layer but the head and routers; experts that are kept in
            3-D parameters are not among them, since an adapter makes a second copy of them in every step.
        modules_to_save: as the spec says.
        added_tokens: the model has rows of its own for new tokens, which are trained in any case.

    Raises:
        ConfigurationError: a name stands for nothing, or for something that cannot be trained so.
    """
    saved = _saved(model, modules_to_save)
    covered = tuple(f"{name}." for name in saved)
    if target_modules == ALL_LINEAR:
        head = model.get_output_embeddings()
        linear = [name for name, module in model.named_modules() if _is_linear(module) and module is not head]
        linear = [name for name in linear if not f"{name}.".startswith(covered)]
        if not linear:
            raise ConfigurationError(
                f"{type(model).__name__} has no linear layer to adapt", field=_TARGETS, hint="use `full`"
            )
        return Targets(linear=tuple(linear), experts=(), saved=saved)
    linear, experts = _named(model, target_modules)
    if problems := tuple(_conflicts(model, linear, experts, covered, added_tokens=added_tokens)):
        raise ConfigurationError(problems)
    return Targets(linear=tuple(linear), experts=tuple(experts), saved=saved)


def head_is_tied(model: PreTrainedModel) -> bool:
    """The head has no weights but the embedding's."""
    head = model.get_output_embeddings()
    return head is None or head.weight is model.get_input_embeddings().weight


def name_of(model: nn.Module, module: nn.Module) -> str:
    """Full name of one of the model's modules."""
    found: str = next(name for name, each in model.named_modules() if each is module)
    return found


def _saved(model: PreTrainedModel, names: Sequence[str]) -> tuple[str, ...]:
    modules = dict(model.named_modules())
    found = {asked: [name for name in modules if _stands_for(asked, name)] for asked in names}
    chosen = [name for name in modules if any(name in each for each in found.values())]
    problems: list[Problem] = []
    for asked, layers in found.items():
        if not layers:
            known = (name for name, module in modules.items() if _trainable(module))
            problems.append(_unknown(_SAVED, asked, known))
        # One a name: of what is wrong with a layer, all layers like it have the same.
        wrong = (_cannot_save(name, modules[name], chosen) for name in layers)
        problems += islice(filter(None, wrong), 1)
    if problems:
        raise ConfigurationError(tuple(problems))
    return tuple(chosen)


def _cannot_save(name: str, module: nn.Module, chosen: Sequence[str]) -> Problem | None:
    if any(hasattr(each, "quant_state") for each in module.parameters()):
        return Problem(
            field=_SAVED,
            reason=f"{name} is held in four bits, which gradients cannot change",
            hint="use lora, or give it an adapter in method.target_modules",
        )
    if isinstance(module, nn.ModuleList | nn.ModuleDict) or not any(True for _ in module.parameters()):
        return Problem(field=_SAVED, reason=f"{name} computes nothing with weights of its own", hint="name a layer")
    if around := next((each for each in chosen if name.startswith(f"{each}.")), None):
        return Problem(field=_SAVED, reason=f"{name} is a part of {around}, which is trained whole", hint="name one")
    return None


def _named(model: PreTrainedModel, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Linear layers and experts that the names stand for."""
    modules, experts = dict(model.named_modules()), _experts(model)
    linear: list[str] = []
    stacked: list[str] = []
    problems: list[Problem] = []
    for asked in names:
        layers = [name for name in modules if _stands_for(asked, name)]
        parameters = [name for name in experts if _stands_for(asked, name)]
        if not layers and not parameters:
            known = (name for name, module in modules.items() if _is_linear(module))
            problems.append(_unknown(_TARGETS, asked, (*known, *experts)))
        for name in layers:
            if not _is_linear(modules[name]):
                problems.append(_not_linear(name, modules[name]))
                break
        linear += [name for name in layers if name not in linear]
        stacked += [name for name in parameters if name not in stacked]
    if problems:
        raise ConfigurationError(tuple(problems))
    return linear, stacked


def _conflicts(
    model: PreTrainedModel,
    linear: Iterable[str],
    experts: Iterable[str],
    covered: tuple[str, ...],
    *,
    added_tokens: bool,
) -> Iterator[Problem]:
    if within := next((name for name in (*linear, *experts) if f"{name}.".startswith(covered)), None):
        yield Problem(
            field=_TARGETS,
            reason=f"{within} is a part of a module that is trained whole (method.modules_to_save)",
            hint="keep it in one of them",
        )
    head = model.get_output_embeddings()
    if head is None or name_of(model, head) not in linear:
        return
    name = name_of(model, head)
    if head_is_tied(model):
        yield Problem(
            field=_TARGETS,
            reason=f"{name} has the embedding's weights, so an adapter would make them two models' worth",
            hint=f"name {name} in method.modules_to_save, which trains both as one",
        )
    elif added_tokens:
        yield Problem(
            field=_TARGETS,
            reason=f"{name} has rows for new tokens, which are trained themselves; an adapter cannot lie over them",
            hint=f"name {name} in method.modules_to_save",
        )


def _experts(model: nn.Module) -> list[str]:
    """Full names of the weights that hold a matrix for each expert."""
    return [name for name, parameter in model.named_parameters() if len(shape_of(parameter)) == 3]


def _stands_for(asked: str, name: str) -> bool:
    return name == asked or name.endswith(f".{asked}")


def _is_linear(module: nn.Module) -> bool:
    return type(module).__name__ in _LINEAR


def _trainable(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(hasattr(each, "quant_state") for each in own)


def _not_linear(name: str, module: nn.Module) -> Problem:
    return Problem(
        field=_TARGETS,
        reason=f"{name} is no linear layer ({type(module).__name__}), and only those get adapters",
        hint="name the linear layers in it, or train it whole: method.modules_to_save",
    )


def _unknown(field: str, asked: str, known: Iterable[str]) -> Problem:
    last = list(dict.fromkeys(name.rpartition(".")[2] for name in known))
    shown = ", ".join(last[:_SHOWN]) + (", …" if len(last) > _SHOWN else "")
    return Problem(field=field, reason=f"`{asked}` is the name of nothing in this model", hint=f"it has {shown}")
