import json
from typing import Any

import pytest

from sftjob.spec import JobSpec, Profile, job_schema, profile_schema
from sftjob.spec.problems import PATTERNS

Variants = dict[str, list[dict[str, Any]]]


def _patterns(schema: object) -> set[str]:
    if isinstance(schema, list):
        return {pattern for inner in schema for pattern in _patterns(inner)}
    if not isinstance(schema, dict):
        return set()
    own = {schema["pattern"]} if isinstance(schema.get("pattern"), str) else set()
    return own.union(*(_patterns(inner) for inner in schema.values()))


def test_head() -> None:
    schema = job_schema()
    assert next(iter(schema)) == "$schema"
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "JobSpec"
    assert "$id" not in schema
    assert profile_schema()["title"] == "Profile"


def test_the_same_bytes_each_time() -> None:
    assert json.dumps(job_schema()) == json.dumps(job_schema())


@pytest.mark.parametrize(("schema", "model"), [(job_schema, JobSpec), (profile_schema, Profile)])
def test_fields_are_those_of_the_model(schema: Any, model: Any) -> None:
    assert list(schema()["properties"]) == list(model.model_fields)
    for definition in (schema(), *(each for each in schema()["$defs"].values() if each["type"] == "object")):
        assert definition["additionalProperties"] is False


@pytest.mark.parametrize("schema", [job_schema, profile_schema])
def test_nothing_may_be_null(schema: Any) -> None:
    assert "null" not in json.dumps(schema())


def test_fields_have_their_docstrings() -> None:
    training = job_schema()["$defs"]["Training"]["properties"]
    assert (
        training["max_length"]["description"]
        == "Tokens of a row, and of a pack; longer rows are treated as `data.overlong` says, and counted."
    )


def test_every_pattern_has_words() -> None:
    """A pattern in an error message helps nobody."""
    assert _patterns([job_schema(), profile_schema()]) == set(PATTERNS)


def test_it_accepts_what_the_model_accepts(variants: Variants) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema comes with the test tools only")
    validator = jsonschema.Draft202012Validator(job_schema())
    validator.check_schema(job_schema())
    for data in (data for specs in variants.values() for data in specs):
        assert list(validator.iter_errors(data)) == []


@pytest.mark.parametrize(
    "change",
    [{"trainign": {}}, {"salt": None}, {"name": "Job"}, {"method": {"type": "loar"}}, {"training": {"seed": "1"}},
     {"model": {"hub": "a/b"}}, {"model": {"path": "m", "hub": "a/b", "revision": "0" * 40}}],
)  # fmt: skip
def test_it_refuses_what_the_model_refuses(change: dict[str, Any], base: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema comes with the test tools only")
    validator = jsonschema.Draft202012Validator(job_schema())
    assert validator.is_valid(base)
    assert not validator.is_valid(base | change)
