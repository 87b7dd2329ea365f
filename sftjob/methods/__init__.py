"""Fine-tuning methods behind one interface, and how models are loaded and exported. Importing this imports torch."""

from typing import Final

from sftjob.methods.base import BaseName, FineTuning, Model, ParameterCounts, Precision, count_parameters
from sftjob.methods.export import check_changed, export, fingerprint
from sftjob.methods.full import FullFineTuning
from sftjob.methods.load import load_base, load_tuned
from sftjob.methods.lora import LoraFineTuning
from sftjob.methods.qlora import QloraFineTuning
from sftjob.resolved import ResolvedMethod

METHODS: Final[dict[str, type[FineTuning]]] = {
    "full": FullFineTuning,
    "lora": LoraFineTuning,
    "qlora": QloraFineTuning,
}
"""By the `type` that a spec names; a test compares it with `spec.METHOD_RULES`."""

__all__ = [
    "METHODS",
    "BaseName",
    "FineTuning",
    "Model",
    "ParameterCounts",
    "Precision",
    "check_changed",
    "count_parameters",
    "export",
    "fine_tuning",
    "fingerprint",
    "load_base",
    "load_tuned",
]


def fine_tuning(method: ResolvedMethod) -> FineTuning:
    """The method of a resolved job, with its hyperparameters."""
    return METHODS[method.type](**method.model_dump(exclude={"type"}))
