"""Pure functions of a spec and of a model's config: what a model is, and later what it needs."""

from sftjob.plan.facts import ModelFacts, model_facts

__all__ = ["ModelFacts", "model_facts"]
