"""`--set a.b=c`: a field of the spec from the command line."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypeVar

from sftjob.errors import Problem
from sftjob.spec.document import PLACEHOLDER, Document
from sftjob.spec.values import MAX_BYTES, MAX_DEPTH, Json, Refusal, clip, key_refusal, secret_refusal, shown
from sftjob.spec.yaml import read_yaml

T = TypeVar("T")

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,5}", re.ASCII)
_NO_VALUE: Final = Problem(reason="has no value", hint="write one after `=`, or leave the option out")
_NO_FLOW: Final = Problem(reason="is a block of YAML", hint="write `[a, b]` or `{a: b}`, or put text in quotes")
_TOO_LONG: Final = Problem(
    reason=f"is longer than {MAX_BYTES // 1024} KiB", hint="a spec names data, it does not hold them"
)


def override(document: Document, assignments: Sequence[str]) -> Document:
    """Applies `a.b=c` assignments in their order; `sftjob.spec.load_spec` says what they mean.

    An assignment that cannot be applied becomes a problem and changes nothing. Whether a field exists is for the
    validation of the result to say. A document that could not be read stays as it is.
    """
    for assignment in assignments:
        document = _applied(document, assignment)
    return document


def _applied(before: Document, assignment: str) -> Document:
    path, equals, text = assignment.partition("=")
    parts = path.split(".")
    if before.value is None:
        return before
    if refusal := _path_refusal(path, parts, equals):
        return _with(before, Problem(file="--set", reason=refusal.reason, hint=refusal.hint))
    label = f"--set {clip(path)}=…"
    given = _parsed(text)
    changed = _assigned(before.value, parts, given.value, 0)
    if isinstance(changed, Refusal):
        return _with(before, Problem(file=label, field=path, reason=changed.reason, hint=changed.hint))
    parents = {".".join(parts[:count]) for count in range(1, len(parts))}
    created = parents - before.lines.keys() - before.origins.keys()
    after = replace(
        before,
        value=changed,
        lines=_outside(path, before.lines),
        origins=_outside(path, before.origins) | dict.fromkeys(created, label) | {path: label},
        refused=before.refused.difference(name for name in before.refused if _is_within(path, name))
        | {_joined(path, name) for name in given.refused},
    )
    return _with(
        after, *(replace(each, file=label, line=0, field=_joined(path, each.field)) for each in given.problems)
    )


def _path_refusal(path: str, parts: list[str], equals: str) -> Refusal | None:
    if refusal := secret_refusal(path) or next(
        (found for part in parts if part and (found := key_refusal(part))), None
    ):
        return refusal
    if not equals:
        return Refusal(f"{shown(path)} has no `=`", "write `field=value`, for instance `training.max_steps=10`")
    if not all(parts) or len(parts) > MAX_DEPTH:
        return Refusal(f"{shown(path)} is not a field", "write names with a dot between them: `training.max_steps`")
    return None


def _parsed(text: str) -> Document:
    """The value after `=`; a placeholder where it cannot be read."""
    given = Document(problems=(_TOO_LONG if text.strip() else _NO_VALUE,))
    if text.strip() and len(text) <= MAX_BYTES:
        given = read_yaml(text)
    if given.is_block and not given.problems:
        given = Document(problems=(_NO_FLOW,))
    return given if given.value is not None else replace(given, value=PLACEHOLDER, refused=frozenset({""}))


def _assigned(container: Json, parts: list[str], value: Json | None, depth: int) -> Json | Refusal:
    """A copy of `container` with `value` at `parts[depth:]`."""
    if depth == len(parts):
        return PLACEHOLDER if value is None else value
    key = parts[depth]
    above = clip(".".join(parts[:depth]))
    if isinstance(container, dict):
        inner = _assigned(container.get(key, {}), parts, value, depth + 1)
        return inner if isinstance(inner, Refusal) else {**container, key: inner}
    if not isinstance(container, list):
        return Refusal(f"`{above}` is {shown(container)} and has no fields", f"set `{above}` itself")
    if not _INDEX.fullmatch(key) or int(key) >= len(container):
        count = f"{len(container)} item{'' if len(container) == 1 else 's'}"
        return Refusal(f"`{above}` has {count}, counted from 0, and no {shown(key)}", f"set the whole list `{above}`")
    inner = _assigned(container[int(key)], parts, value, depth + 1)
    return inner if isinstance(inner, Refusal) else [*container[: int(key)], inner, *container[int(key) + 1 :]]


def _with(document: Document, *problems: Problem) -> Document:
    return replace(document, problems=(*document.problems, *problems))


def _outside(path: str, names: dict[str, T]) -> dict[str, T]:
    return {name: value for name, value in names.items() if not _is_within(path, name)}


def _is_within(path: str, name: str) -> bool:
    return name == path or name.startswith(f"{path}.")


def _joined(path: str, inner: str) -> str:
    return f"{path}.{inner}" if inner else path
