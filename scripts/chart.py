"""What the Helm chart takes from the models: values.schema.json, files/defaults.json, its version and README.

Its templates repeat what `sftjob.place` and `sftjob.render` do; what is the same in every run they take from here.
"""

import json
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from sftjob import __version__
from sftjob.contract import HELD_QUEUE, RENDEZVOUS_PORT, SPEC_FILE, Env, Label, Mount
from sftjob.place import place
from sftjob.render import render
from sftjob.spec import JobSpec, Profile, job_schema, profile_schema
from sftjob.spec.names import JOBSET_CHILD, JOBSET_WORKER
from sftjob.spec.network import Egress, NetworkPolicy
from sftjob.spec.profile import ModelCache, Toleration
from sftjob.spec.types import SUFFIXES

CHART: Final = Path(__file__).resolve().parent.parent / "charts/sftjob"
SOME_JOB: Final = {
    "name": "some",
    "model": {"uri": "s3://models/some"},
    "data": {"train": [{"uri": "s3://data/some.jsonl"}]},
    "method": {"type": "full"},
    "storage": {"uri": "s3://runs/some"},
}
Json = dict[str, Any]


def files(fields: Iterable[str]) -> dict[str, str]:
    """Every generated file of the chart, by its path below the chart's folder.

    Args:
        fields: lines of Markdown that say what a spec and a profile may hold.
    """
    chart = (CHART / "Chart.yaml").read_text()
    return {
        "Chart.yaml": re.sub(r"^(version|appVersion): .*$", rf"\1: {__version__}", chart, flags=re.MULTILINE),
        "values.schema.json": json_text(values_schema()),
        "files/defaults.json": json_text(constants()),
        "README.md": "\n".join(readme(fields)),
    }


def values_schema() -> Json:
    """JSON schema of the chart's values; draft 7, which every Helm 3 and 4 reads."""
    job, profile = job_schema(), profile_schema()
    definitions = {**job.pop("$defs"), "JobSpec": job}
    for name, definition in {**profile.pop("$defs"), "Profile": profile}.items():
        if definitions.setdefault(name, definition) != definition:
            raise ValueError(f"two models are called {name}")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart sftjob",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "spec": {
                "description": "The job, as `sftjob render` takes it. Nothing is rendered without one.",
                "type": "object",
                "default": {},
                "if": {"minProperties": 1},
                "then": {"$ref": "#/definitions/JobSpec"},
            },
            "profile": {
                "description": "The platform's half, as `sftjob render --profile` takes it.",
                "type": "object",
                "default": {},
                "allOf": [{"$ref": "#/definitions/Profile"}],
            },
            "keepOnUpgrade": {
                "description": "Leave a run's objects alone when an upgrade replaces them or the release is "
                "uninstalled. Without it their pods save a checkpoint and end, and a new image goes on from there.",
                "type": "boolean",
                "default": False,
            },
            "global": {"description": "Not used; Helm hands it to every chart.", "type": "object"},
        },
        "definitions": as_draft_7(definitions),
    }


def as_draft_7(schema: Any) -> Any:
    """The same with references to `definitions`, and without what draft 7 does not know."""
    if isinstance(schema, list):
        return [as_draft_7(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: as_draft_7(value) for key, value in schema.items() if key not in ("$schema", "discriminator")}
    if isinstance(schema.get("$ref"), str):
        kept["$ref"] = schema["$ref"].replace("#/$defs/", "#/definitions/")
    return kept


def constants() -> Json:
    """What templates cannot know: defaults of the models, and what the objects of every run have in common."""
    return {
        "version": __version__,
        "spec": model_defaults(JobSpec),
        "profile": model_defaults(Profile),
        "models": {model.__name__: model_defaults(model) for model in (Egress, ModelCache, NetworkPolicy, Toleration)},
        "units": units(1),
        "mebibytes": units(2**20),
        "specFile": SPEC_FILE,
        "rendezvousPort": RENDEZVOUS_PORT,
        "mounts": {mount.name: mount.value for mount in Mount},
        "jobsetWorker": JOBSET_WORKER,
        "jobsetChild": JOBSET_CHILD,
        "heldQueue": HELD_QUEUE,
        **common_parts(),
    }


def model_defaults(model: type[BaseModel]) -> Json:
    """What a field has when it is left out; one that is required, or stays absent, is not there."""
    defaults = {
        name: default
        for name, field in model.model_fields.items()
        if not field.is_required() and (default := field.get_default(call_default_factory=True)) is not None
    }
    return model.model_construct(None, **defaults).model_dump(mode="json", include={*defaults}, exclude_none=True)


def units(one: int) -> dict[str, list[int]]:
    """Numerator and denominator of each suffix of a quantity, counted in `one`."""
    return {suffix: [*(Fraction(factor) / one).as_integer_ratio()] for suffix, factor in SUFFIXES.items()}


def common_parts() -> Json:
    """Parts of objects that are the same in every run, out of the objects of two runs."""
    batch, jobset = rendered(Profile()), rendered(Profile(engine="jobset", cpu_limit=True))
    train, evaluation, gate = (batch[f"Job/{component}"]["spec"] for component in ("train", "eval", "gate"))
    job_set = jobset["JobSet/train"]["spec"]
    gang = job_set["replicatedJobs"][0]["template"]["spec"]
    return {
        "podSecurityContext": pod(train)["securityContext"],
        "containerSecurityContext": container(train)["securityContext"],
        "keepNode": evaluation["template"]["metadata"]["annotations"],
        "caches": [
            each for each in container(evaluation)["env"] if f"{each.get('value')}".startswith(f"{Mount.WORK}/")
        ],
        "owner": {
            engine: variable(job, Env.OWNER)["valueFrom"] for engine, job in (("batch", train), ("jobset", gang))
        },
        "shutdownMarginSeconds": int(variable(train, Env.GRACE_SECONDS)["value"])
        - int(variable(train, "TORCH_ELASTIC_SHUTDOWN_TIMEOUT")["value"]),
        "podFailurePolicy": {
            "train": train["podFailurePolicy"],
            "eval": evaluation["podFailurePolicy"],
            "gate": gate["podFailurePolicy"],
            "gang": gang["podFailurePolicy"],
        },
        "jobsetFailurePolicy": {key: job_set["failurePolicy"][key] for key in ("restartStrategy", "rules")},
        "evaluation": {"terminationGracePeriodSeconds": pod(evaluation)["terminationGracePeriodSeconds"]},
        "gate": {
            "terminationGracePeriodSeconds": pod(gate)["terminationGracePeriodSeconds"],
            "backoffLimit": gate["backoffLimit"],
            "resources": container(gate)["resources"],
            "cpuLimit": container(jobset["Job/gate"]["spec"])["resources"]["limits"]["cpu"],
            "tmp": next(each for each in pod(gate)["volumes"] if each["name"] == "tmp"),
        },
    }


def rendered(profile: Profile) -> dict[str, Any]:
    """The objects of some run by kind and component."""
    spec = JobSpec.model_validate_json(json.dumps(SOME_JOB))
    objects: list[Any] = [*render(place(spec, profile), spec)]
    return {f"{each['kind']}/{each['metadata']['labels'][Label.COMPONENT]}": each for each in objects}


def pod(job: Json) -> Json:
    found: Json = job["template"]["spec"]
    return found


def container(job: Json) -> Json:
    found: Json = pod(job)["containers"][0]
    return found


def variable(job: Json, name: str) -> Json:
    found: Json = next(each for each in container(job)["env"] if each["name"] == name)
    return found


def readme(fields: Iterable[str]) -> Iterator[str]:
    """The chart's README: its values, and what a spec and a profile may hold."""
    yield "# sftjob\n"
    yield "One training run as a Helm release: the same objects as `sftjob render` makes of the same spec and profile."
    yield "How to install, upgrade, keep and remove it, and where Helm differs, is in `docs/helm.md` of the project.\n"
    yield "    helm install RELEASE charts/sftjob -f values.yaml\n"
    yield "Generated from the models by `make verify`.\n"
    yield "| value | | default |\n| --- | --- | --- |"
    for name, schema in values_schema()["properties"].items():
        default = f"`{json.dumps(schema['default'])}`" if "default" in schema else ""
        yield f"| `{name}` | {schema['description']} | {default} |"
    yield from fields
    yield ""


def json_text(value: Json) -> str:
    return f"{json.dumps(value, indent=2, ensure_ascii=False)}\n"
