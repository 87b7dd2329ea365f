"""A method is a class that people write, a rule, a resolved form and a module: all four, or none."""

import ast
from collections.abc import Mapping
from typing import get_args

from sftjob.resolve import ResolvedJob
from sftjob.spec import METHOD_RULES, Method


def types_of(union: object) -> set[str]:
    """The values of `type` that tell the members of a union of models apart."""
    members = get_args(union)
    return {get_args(member.model_fields["type"].annotation)[0] for member in members}


def registered(tree: ast.Module) -> set[str]:
    """Keys of the dictionary METHODS; importing it would import torch."""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "METHODS":
            return set(ast.literal_eval(ast.Tuple([key for key in node.value.keys if key], ast.Load())))  # type: ignore[union-attr]
    raise AssertionError("sftjob.methods has no METHODS")


def test_spec_and_rules_agree() -> None:
    union, _discriminator = get_args(Method)

    assert types_of(union) == METHOD_RULES.keys()


def test_resolved_forms_and_rules_agree() -> None:
    assert types_of(ResolvedJob.model_fields["method"].annotation) == METHOD_RULES.keys()


def test_modules_and_rules_agree(modules: Mapping[str, ast.Module]) -> None:
    assert registered(modules["sftjob.methods"]) == METHOD_RULES.keys()
    assert {f"sftjob.methods.{name}" for name in METHOD_RULES} <= modules.keys()
