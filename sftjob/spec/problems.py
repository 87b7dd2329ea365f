"""What pydantic says of a spec, in words that name the repair."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Self

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sftjob.errors import Problem
from sftjob.spec.fields import Place, models_of, place, tags
from sftjob.spec.values import clip, shown

_REVISION_HINT: Final = "`git ls-remote https://huggingface.co/<id> HEAD` prints it"
_LABEL: Final = "lower-case letters, digits and dashes, with a letter or digit at both ends"
PATTERNS: Final[dict[str, tuple[str, str]]] = {
    r"^[a-z]([-a-z0-9]{0,28}[a-z0-9])?$": (
        "a name",
        "use at most 30 lower-case letters, digits and dashes, a letter first and no dash last",
    ),
    r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?$": ("a repository id", "write `owner/name`"),
    r"^[0-9a-f]{40}$": ("40 hex digits", _REVISION_HINT),
    r"^[0-9a-f]{64}$": ("64 hex digits", "`sha256sum` prints them"),
    r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\s?#]*)?$": ("an S3 address", "write `s3://bucket/prefix`"),
    r"^[^\x00\n]+$": ("a path", "write one path, on one line"),
    r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$": (
        "a quantity",
        "write a number and one of m, k, M, G, T, Ki, Mi, Gi, Ti, for instance `500m` or `16Gi`",
    ),
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": ("a DNS label", f"use {_LABEL}"),
    r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$": ("a Kubernetes object name", f"use {_LABEL}; dots may separate labels"),
    r"^[-._a-zA-Z0-9]+$": ("a key of a Secret", "use letters, digits, dashes, underscores and dots"),
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$": (
        "a GPU product",
        "write the node's label `nvidia.com/gpu.product`, for instance `NVIDIA-H100-80GB-HBM3`",
    ),
    r"^https?://[^\s@?#]+$": ("an http address", "write `https://host:port`"),
    r"^[a-z0-9-]{1,64}$": ("a region", "write one such as `eu-central-1`"),
    r"^[-A-Za-z0-9./_]+$": ("a node label", "write its key, for instance `topology.kubernetes.io/zone`"),
    r"^([a-z0-9.-]+/)?[A-Za-z0-9][-A-Za-z0-9_.]*$": (
        "a node label",
        "write its key, for instance `nvidia.com/gpu.product`",
    ),
    r"^nvidia\.com/(gpu|gpu\.shared|mig-[0-9]+g\.[0-9]+gb(\.me)?)$": (
        "a GPU resource",
        "write `nvidia.com/gpu`, `nvidia.com/gpu.shared` or a slice such as `nvidia.com/mig-1g.10gb`",
    ),
    r"^\S+$": ("an image", "write `registry/repository@sha256:…`"),
}
"""What each pattern of the models is called, and how to write one; a test compares it with the schemas."""

_BOUNDS: Final = {
    "greater_than_equal": ("ge", "too small", "use at least"),
    "greater_than": ("gt", "too small", "use more than"),
    "less_than_equal": ("le", "too large", "use at most"),
    "less_than": ("lt", "too large", "use less than"),
}
_COUNTS: Final = {
    "string_too_short": ("min_length", "characters", "at least"),
    "string_too_long": ("max_length", "characters", "at most"),
    "too_short": ("min_length", "items", "at least"),
    "too_long": ("max_length", "items", "at most"),
}


@dataclass(frozen=True)
class _Error:
    """One of pydantic's errors, at the place that the person knows."""

    kind: str
    message: str
    place: Place
    given: Any
    """Data as parsed from JSON, of any shape."""
    context: dict[str, Any]
    root: type[BaseModel]

    @classmethod
    def of(cls, details: ErrorDetails, root: type[BaseModel]) -> Self:
        where = place(root, details["loc"])
        return cls(details["type"], details["msg"], where, details["input"], details.get("ctx", {}), root)

    @property
    def field(self) -> str:
        return self.place.field


@dataclass(frozen=True)
class _Finding:
    field: str
    reason: str
    hint: str = ""
    expected: str = ""
    """For a value that is something else: what was expected. Findings of one field are joined by it."""


def problems_of(error: ValidationError, root: type[BaseModel]) -> list[Problem]:
    """One `Problem` for each mistake in what was validated as `root`, with `field` as the person wrote it.

    Unknown fields come with the nearest allowed one. Several complaints of a union about one value become one; where a
    part of a value is wrong, the whole is not reported again.
    """
    errors = [_Error.of(details, root) for details in error.errors(include_url=False)]
    findings = [_DESCRIBE.get(each.kind, _other)(each) for each in errors]
    fields = dict.fromkeys(finding.field for finding in findings)
    return [
        _joined([finding for finding in findings if finding.field == field])
        for field in fields
        if not any(other.startswith(f"{field}.") for other in fields)
    ]


def _joined(findings: list[_Finding]) -> Problem:
    first = findings[0]
    expected = " or ".join(dict.fromkeys(finding.expected for finding in findings if finding.expected))
    hint = next((finding.hint for finding in findings if finding.hint), "")
    reason = f"{first.reason} is not {expected}" if first.expected else first.reason
    return Problem(field=first.field, reason=reason, hint=hint)


def _missing(error: _Error) -> _Finding:
    revision = error.field.endswith(".revision")
    return _Finding(error.field, "is missing", _REVISION_HINT if revision else "add it")


def _unknown(error: _Error) -> _Finding:
    key = error.field.rpartition(".")[2]
    allowed = list(error.place.owner.model_fields) if error.place.owner else []
    if near := get_close_matches(key, allowed, n=1):
        return _Finding(error.field, "unknown field", f"did you mean `{near[0]}`?")
    if error.field.count(".") < 2 and (other := _elsewhere(key, error.root)) not in ("", error.field):
        return _Finding(error.field, "unknown field here", f"write it as `{other}`")
    return _Finding(error.field, "unknown field", f"known here: {', '.join(allowed)}")


def _elsewhere(key: str, root: type[BaseModel]) -> str:
    """Where a field of that name exists one level down; the keys of sources (`path`) say too little to guess."""
    for name, field in root.model_fields.items():
        models = tuple(models_of(field.annotation))
        is_source = len(models) > 1 and not tags(field.annotation)
        if not is_source and any(key in model.model_fields for model in models):
            return f"{name}.{key}"
    return ""


def _no_text(error: _Error) -> _Finding:
    hint = "put it in quotes" if isinstance(error.given, bool | int | float) else ""
    return _Finding(error.field, shown(error.given), hint, "text")


def _no_number(error: _Error) -> _Finding:
    expected = "a number" if error.kind.startswith("float") else "a whole number"
    if _is_number(error.given):
        return _Finding(error.field, f"{shown(error.given)} in quotes", "remove the quotes", expected)
    return _Finding(error.field, shown(error.given), "", expected)


def _no_boolean(error: _Error) -> _Finding:
    if error.given in ("true", "false"):
        return _Finding(error.field, f"{shown(error.given)} in quotes", "remove the quotes", "a boolean")
    return _Finding(error.field, shown(error.given), "", "`true` or `false`")


def _no_list(error: _Error) -> _Finding:
    return _Finding(error.field, shown(error.given), "write each item on a line of its own, after `- `", "a list")


def _no_mapping(error: _Error) -> _Finding:
    line = f"`type: {error.given}`" if error.given in tags(error.place.annotation) else "`key: value` lines"
    return _Finding(error.field, shown(error.given), f"write {line} below it", "a mapping")


def _no_choice(error: _Error) -> _Finding:
    choices = re.findall(r"'([^']*)'", str(error.context["expected"]))
    return _Finding(error.field, shown(error.given), _did_you_mean(error.given, choices), _either(choices))


def _no_tag(error: _Error) -> _Finding:
    key = str(error.context["discriminator"]).strip("'")
    choices = tags(error.place.annotation)
    value = error.given.get(key)
    if value is None:
        return _Finding(f"{error.field}.{key}", "is missing", f"write {_either(choices)}")
    return _Finding(f"{error.field}.{key}", shown(value), _did_you_mean(value, choices), _either(choices))


def _no_source(error: _Error) -> _Finding:
    """A model or data set that names no place; the message comes from the union itself."""
    known = re.findall(r"`(\w+)`", error.message)
    if isinstance(error.given, str):
        is_repository = "hub" in known and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", error.given)
        key = "uri" if error.given.startswith("s3://") else "hub" if is_repository else "path"
        return _Finding(error.field, error.message, f"write `{key}: {shown(error.given).strip('`')}` below it")
    keys = [key for key in error.given if key not in known] if isinstance(error.given, dict) else []
    near = next(((key, match[0]) for key in keys if (match := get_close_matches(key, known, n=1))), None)
    return _Finding(error.field, error.message, f"did you mean `{near[1]}`, not {shown(near[0])}?" if near else "")


def _no_match(error: _Error) -> _Finding:
    pattern = str(error.context["pattern"])
    expected, hint = PATTERNS.get(pattern, (f"text of the form {pattern}", ""))
    return _Finding(error.field, shown(error.given), hint, expected)


def _out_of_bounds(error: _Error) -> _Finding:
    bound, reason, hint = _BOUNDS[error.kind]
    return _Finding(error.field, f"{shown(error.given)} is {reason}", f"{hint} {_plain(error.context[bound])}")


def _plain(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


def _wrong_count(error: _Error) -> _Finding:
    bound, unit, hint = _COUNTS[error.kind]
    count = len(error.given)
    reason = f"has {count} {unit}" if count else "is empty"
    return _Finding(error.field, reason, f"{hint} {error.context[bound]} are allowed")


def _refused(error: _Error) -> _Finding:
    """A validator of ours, whose message is written for people."""
    return _Finding(error.field, str(error.context["error"]))


def _other(error: _Error) -> _Finding:
    return _Finding(error.field, f"{shown(error.given)}: {clip(error.message)}")


_DESCRIBE: Final[dict[str, Callable[[_Error], _Finding]]] = {
    "missing": _missing,
    "extra_forbidden": _unknown,
    "string_type": _no_text,
    "int_type": _no_number,
    "int_from_float": _no_number,
    "float_type": _no_number,
    "bool_type": _no_boolean,
    "tuple_type": _no_list,
    "list_type": _no_list,
    "dict_type": _no_mapping,
    "model_type": _no_mapping,
    "model_attributes_type": _no_mapping,
    "literal_error": _no_choice,
    "union_tag_invalid": _no_tag,
    "union_tag_not_found": _no_tag,
    "source": _no_source,
    "string_pattern_mismatch": _no_match,
    "value_error": _refused,
    **dict.fromkeys(_BOUNDS, _out_of_bounds),
    **dict.fromkeys(_COUNTS, _wrong_count),
}


def _is_number(given: object) -> bool:
    return isinstance(given, str) and re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", given) is not None


def _did_you_mean(given: object, choices: Iterable[str]) -> str:
    near = get_close_matches(given, list(choices), n=1) if isinstance(given, str) else []
    return f"did you mean `{near[0]}`?" if near else ""


def _either(choices: Iterable[str]) -> str:
    *some, last = (f"`{choice}`" for choice in choices)
    return f"{', '.join(some)} or {last}" if some else last
