"""Pure functions of a spec and of a model's config: what a model is, what training it needs, and what to choose."""

from sftjob.plan.choose import Choice, choose
from sftjob.plan.estimate import Estimate, estimate, estimate_of
from sftjob.plan.facts import ModelFacts, model_facts
from sftjob.plan.gpus import Gpu, find_gpu

__all__ = ["Choice", "Estimate", "Gpu", "ModelFacts", "choose", "estimate", "estimate_of", "find_gpu", "model_facts"]
