"""JSON schemas of what people write, for editors: `sftjob schema` prints them."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from sftjob.spec.job import JobSpec
from sftjob.spec.profile import Profile
from sftjob.spec.types import SpecModel


def job_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of `JobSpec`.

    It accepts every spec that the loader accepts. The loader refuses more: rules between fields, and how YAML is
    written.
    """
    return _schema(JobSpec)


def profile_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of `Profile`; see `job_schema`."""
    return _schema(Profile)


def _schema(model: type[SpecModel]) -> dict[str, Any]:
    return {"$schema": _WithoutNull.schema_dialect, **model.model_json_schema(schema_generator=_WithoutNull)}


class _WithoutNull(GenerateJsonSchema):
    """A field that may be left out is no field that may be null: the loader refuses null, so editors should."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def encode_default(self, dft: object) -> Any:
        return _without_null(super().encode_default(dft))

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        generated = super().default_schema(schema)
        return {key: value for key, value in generated.items() if key != "default" or value is not None}


def _without_null(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_null(inner) for key, inner in value.items() if inner is not None}
    return [_without_null(inner) for inner in value] if isinstance(value, list | tuple) else value
