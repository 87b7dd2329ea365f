"""Random specs and profiles that `render` takes, made from the models' own schemas: a new field is tried by itself."""

import math
import re
from collections.abc import Iterator
from random import Random
from typing import Any, Final

from pydantic import ValidationError

from sftjob.errors import SpecError
from sftjob.place import place
from sftjob.spec import JobSpec, Profile, canonical_json, job_schema, parse_spec_json, profile_schema
from sftjob.spec.types import SpecModel

SMALLEST: Final = {
    "name": "job",
    "model": {"uri": "s3://models/tiny"},
    "data": {"train": [{"uri": "s3://data/train.jsonl"}]},
    "method": {"type": "lora"},
    "storage": {"uri": "s3://runs/team"},
}
TEXTS: Final = (
    "a", "job", "llama-3-lora", "q_proj", "1e5", "0755", "yes", "null", "~", "true", "1:30", "2026-01-31", "0.5", " x ",
    "{{ .Values.spec }}", "$(HOME) $$ ${X}", "tab\tand\nlines\n", "# no comment", "- item", "a: b", "back\\slash \"'",
    "<&>", "Grüße 🦙 \u00a0\u00ad\ufeff", "{% for m in messages %}{{ m.content }}{% endfor %}", "%s %d %%", "x" * 300,
    "team/model-7b", "org.name/Model_1.2", "s3://bucket", "s3://bucket.name/a b$(c)".replace(" ", "-"), "s3://runs/team/x",
    "http://s3.store.svc:7070", "https://S3.eu-central-1.AmazonAWS.com", "https://s3.cn-north-1.amazonaws.com.cn/x",
    "https://[fd00::1]:9000/a", "eu-central-1", "0123456789abcdef" * 4, "0123456789abcdef0123456789abcdef01234567",
    "NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", "nvidia.com/mig-1g.10gb",
    "cloud.google.com/gke-accelerator",
    "registry.example/ml/sftjob@sha256:" + "ab" * 32, "sftjob:1.2-cuda", "localhost:5001/sftjob:dev",
    "4", "1", "96", "500m", "2.5", "0.300", "1500m", "007", "16Gi", "1.5Ti", "64Mi", "256Mi", "1Gi", "1000G",
    "300.25Gi", "2147483648", "4096Ki",
    "80000000k", "9.765625T", "example.com/owner", "team", "train[:10%]",
)  # fmt: skip
"""What may stand in a string; each field takes those that its pattern allows."""
RANGES: Final = ("10.0.0.0/8", "0.0.0.0/0", "fd00::/8")
"""Of addresses: the schema knows no pattern for them."""
NUMBERS: Final = (0, 1, 2, 3, 7, 8, 16, 64, 90, 100, 600, 4096, 2**31, 2**32 - 1)
FLOATS: Final = (2e-5, 2e-4, 1e-8, 5e-324, 0.1, 0.05, 0.999, 0.03125, 1, 1.0, 1.5, 3, 123456.789, 1e21, 999999.0)
ANYTHING: Final = {
    "anyOf": [
        {"type": "string"},
        {"type": "boolean"},
        {"type": "number"},
        {"type": "array", "items": {"type": "number"}},
        {"type": "object", "additionalProperties": {"type": "number"}},
    ]
}
"""Where the schema says nothing, as below `launch.deepspeed`."""
Json = dict[str, Any]


class Generator:
    """Makes the specs and profiles of one seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._job, self._profile = job_schema(), profile_schema()
        self._definitions = {**self._job["$defs"], **self._profile["$defs"]}

    def pairs(self, count: int) -> Iterator[tuple[Json, Json]]:
        """Specs with a profile each, as people write them."""
        for _ in range(count):
            yield self._pair()

    def _pair(self) -> tuple[Json, Json]:
        spec: Json = dict(SMALLEST)
        profile: Json = {}
        names = [("spec", name) for name in self._job["properties"]]
        names += [("profile", name) for name in self._profile["properties"]]
        self._random.shuffle(names)
        for half, name in names:
            schema = (self._job if half == "spec" else self._profile)["properties"][name]
            if self._random.random() < 0.4:
                spec, profile = self._with(spec, profile, half, name, schema)
        return spec, profile

    def _with(self, spec: Json, profile: Json, half: str, name: str, schema: Json) -> tuple[Json, Json]:
        """Both with another value of one field, unless none of a dozen fits to the rest."""
        for _ in range(12):
            value = self._value(schema)
            changed = ({**spec, name: value}, profile) if half == "spec" else (spec, {**profile, name: value})
            if read(*changed):
                return changed
        return spec, profile

    def _value(self, schema: Json) -> Any:
        if "$ref" in schema:
            return self._value(self._definitions[schema["$ref"].rpartition("/")[2]])
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self._value(self._random.choice(schema[key]))
        if "const" in schema or "enum" in schema:
            return self._random.choice(schema.get("enum", [schema.get("const")]))
        kinds = {"object": self._object, "array": self._list, "string": self._text, "boolean": self._boolean}
        return kinds.get(schema.get("type", ""), self._number)(schema)

    def _object(self, schema: Json) -> Json:
        required = schema.get("required", [])
        found = {
            name: self._value(inner)
            for name, inner in schema.get("properties", {}).items()
            if name in required or self._random.random() < 0.3
        }
        more = schema.get("additionalProperties", False)
        if more is False:
            return found
        for _ in range(self._random.randint(0, 3)):
            found[self._key(schema.get("propertyNames", {}))] = self._value(ANYTHING if more is True else more)
        return found

    def _key(self, schema: Json) -> str:
        keys = schema.get("enum") or (
            "team",
            "example.com/owner",
            "A_B.c",
            "NCCL_SOCKET_IFNAME",
            "HF_TOKEN_PATH_",
            "HOME",
        )
        return str(self._random.choice(keys))

    def _list(self, schema: Json) -> list[Any]:
        length = self._random.randint(schema.get("minItems", 0), 3)
        return [self._value(schema["items"]) for _ in range(length)]

    def _text(self, schema: Json) -> str:
        texts = RANGES if schema.get("title") == "Cidr" else TEXTS
        fitting = [text for text in texts if _takes(schema, text)]
        assert fitting, f"no text fits to {schema}; add one to TEXTS"
        return self._random.choice(fitting)

    def _number(self, schema: Json) -> int | float:
        numbers = NUMBERS if schema.get("type") == "integer" else (*FLOATS, *NUMBERS[:6])
        return self._random.choice([number for number in numbers if _in_bounds(schema, number)])

    def _boolean(self, _schema: Json) -> bool:
        return self._random.random() < 0.5


def read(spec: Json, profile: Json) -> tuple[JobSpec, Profile] | None:
    """Both as the loader reads them; None for what it, or `place`, refuses."""
    try:
        found = parse_spec_json(canonical_json(spec), "spec"), Profile.model_validate_json(canonical_json(profile))
        place(*found)
    except (SpecError, ValidationError):
        return None
    return found


def fields_in(model: SpecModel) -> Iterator[tuple[str, str]]:
    """Model and name of each field that somebody has written."""
    for name in model.model_fields_set:
        yield type(model).__name__, name
        value = getattr(model, name)
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, SpecModel):
                yield from fields_in(inner)


def all_fields() -> set[tuple[str, str]]:
    """Model and name of each field that a manifest may carry; local files cannot."""
    job, profile = job_schema(), profile_schema()
    models = {**job["$defs"], **profile["$defs"], "JobSpec": job, "Profile": profile}
    models = {name: model for name, model in models.items() if name not in ("LocalModel", "LocalData", "TemplateFile")}
    return {(name, field) for name, model in models.items() for field in model.get("properties", {})}


def _takes(schema: Json, text: str) -> bool:
    fits = schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", 1 << 20)
    return fits and re.search(schema.get("pattern", ""), text) is not None


def _in_bounds(schema: Json, number: float) -> bool:
    least, most = schema.get("minimum", number), schema.get("maximum", number)
    above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
    return bool(least <= number <= most and above < number < below)
