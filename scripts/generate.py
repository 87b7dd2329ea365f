#!/usr/bin/env python3
"""Writes what is generated from the models; `make verify` runs it and fails when git sees a difference."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chart
import samples

from sftjob.spec.schema import job_schema, profile_schema

DOCS = Path(__file__).resolve().parent.parent / "docs"
Schema = dict[str, Any]


def main() -> int:
    schemas = {"jobspec": job_schema(), "profile": profile_schema()}
    for name, schema in schemas.items():
        text = json.dumps(schema, indent=2, ensure_ascii=False)
        (DOCS / f"{name}.schema.json").write_text(f"{text}\n")
    (DOCS / "fields.md").write_text("\n".join(fields_page(schemas)))
    for name, text in chart.files(model_sections(schemas)).items():
        (chart.CHART / name).write_text(text)
    samples.SAMPLES.mkdir(exist_ok=True)
    for name, text in samples.files().items():
        (samples.SAMPLES / name).write_text(text)
    return 0


def fields_page(schemas: dict[str, Schema]) -> Iterator[str]:
    """Every field of a spec and of a profile, from the models' own words."""
    yield "# Fields\n"
    yield "Generated from the models by `make verify`. [spec.md](spec.md) explains how they play together and says what"
    yield "`resolve` puts in for a field of `training` or `method` that is left out."
    yield from model_sections(schemas)
    yield ""


def model_sections(schemas: dict[str, Schema]) -> Iterator[str]:
    """A table for each model."""
    for title, schema in (("JobSpec", schemas["jobspec"]), ("Profile", schemas["profile"])):
        for name, model in ((title, schema), *schema.get("$defs", {}).items()):
            if "properties" in model:
                yield from model_section(name, model)


def model_section(name: str, model: Schema) -> Iterator[str]:
    yield f"\n## {name}\n"
    yield " ".join(str(model.get("description", "")).split())
    yield "\n| field | value | default | |\n| --- | --- | --- | --- |"
    required = model.get("required", [])
    for field, schema in model["properties"].items():
        default = "**required**" if field in required else json_words(schema.get("default"))
        yield f"| `{field}` | {cell(value_words(schema))} | {default} | {cell(schema.get('description', ''))} |"


def value_words(schema: Schema) -> str:
    """What may stand there, in few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(value_words(option) for option in schema[key]))
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{option}`" for option in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {value_words(schema.get('items', {}))}"
    if schema.get("type") == "object":
        return "mapping"
    return f"{schema.get('type', 'anything')}{bounds(schema)}"


def bounds(schema: Schema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema]
    return f", {', '.join(found)}" if found else ""


def json_words(value: object) -> str:
    return "" if value in (None, []) or isinstance(value, dict) else f"`{json.dumps(value)}`"


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
