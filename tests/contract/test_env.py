"""What the renderer sets is what the container reads: no variable is lost between the two legs."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sftjob.contract import Env
from sftjob.place import place
from sftjob.render import render
from sftjob.spec import JobSpec, Profile

Modules = Mapping[str, ast.Module]

LAPTOP = re.compile(r"sftjob\.(place|render|cli|app(?!\.evaluation))\b")
"""The leg that writes variables; all else reads them, the evaluation under `app` included."""
BY_KUBERNETES = {Env.POD_INDEX}
BY_RUN_OR_TESTS = {Env.INPUTS, Env.DIE_WITH_PARENT, Env.FAULT}
"""Read in the container, too, but rendered into no pod: see their docstrings."""


def used(modules: Modules, *, laptop: bool) -> set[Env]:
    """Members of `Env` that one of the legs names."""
    return {
        Env[node.attr]
        for name, tree in modules.items()
        if bool(LAPTOP.match(name)) is laptop and name != "sftjob.contract"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Env"
    }


def rendered() -> set[str]:
    """Names of all variables of the pods of a job that has everything."""
    spec = JobSpec.model_validate_json(
        json.dumps(
            {
                "name": "job",
                "model": {"uri": "s3://models/tiny"},
                "data": {"train": [{"uri": "s3://data/train.jsonl"}]},
                "method": {"type": "full"},
                "launch": {"nodes": 2},
            }
        )
    )
    platform = {"storage": {"uri": "s3://runs/team"}, "queue": {"name": "team"}, "model_cache": {"claim": "models"}}
    objects: Any = render(place(spec, Profile.model_validate_json(json.dumps(platform))), spec)
    pods = [each["spec"]["template"]["spec"] for each in objects if each["kind"] == "Job"]
    assert len(pods) == 3
    return {variable["name"] for pod in pods for variable in pod["containers"][0]["env"]}


def literals(tree: ast.AST) -> Iterator[str]:
    """All strings of a module but its docstrings, parts of f-strings included."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


class TestEnv:
    def test_container_reads_every_variable(self, modules: Modules) -> None:
        assert used(modules, laptop=False) == set(Env)

    def test_pods_get_every_variable_that_is_read(self, modules: Modules) -> None:
        ours = {Env(name) for name in rendered() if name in set(Env)}

        assert ours == used(modules, laptop=False) - BY_KUBERNETES - BY_RUN_OR_TESTS

    def test_nothing_of_ours_is_set_that_the_contract_does_not_name(self) -> None:
        assert {name for name in rendered() if name.startswith("SFTJOB")} <= set(Env)

    def test_names_stand_in_the_contract_alone(self, modules: Modules) -> None:
        found = {
            f"{name}: {text[:40]}"
            for name, tree in modules.items()
            if name != "sftjob.contract"
            for text in literals(tree)
            if "SFTJOB_" in text
        }

        assert not found

    def test_a_name_of_ones_own_is_found(self) -> None:
        tree = ast.parse('"""SFTJOB_DOC"""\nx = os.environ["SFTJOB_X"]\ny = f"SFTJOB_{x}"')

        assert [text for text in literals(tree) if "SFTJOB_" in text] == ["SFTJOB_X", "SFTJOB_"]
