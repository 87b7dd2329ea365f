"""From pydantic's location of an error to the field as the person wrote it.

Pydantic puts the tags of unions and `[key]` between the keys: `('data', 'train', 0, 'path', 'format')` is
`data.train.0.format`, where `path` is the tag of the source. Only the types tell tags from keys, so the walk follows
them.
"""

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, Tag


@dataclass(frozen=True)
class Place:
    """Where an error is."""

    field: str
    """Dotted path as written."""
    annotation: object
    """Type of the value there; None when the path leaves the model."""
    owner: type[BaseModel] | None
    """The model to whose fields the last key belongs, or should belong."""


def place(root: type[BaseModel], location: Sequence[int | str]) -> Place:
    """Follows `location` through the types of `root`."""
    parts: list[str] = []
    annotation: object = root
    owner: type[BaseModel] | None = None
    for part in location:
        choices = alternatives(annotation)
        if len(choices) > 1:
            annotation = next((choice for choice in choices if _is_tagged(choice, part)), None)
            continue
        kind = _bare(choices[0]) if choices else None
        if parts and not _has_children(kind):
            continue  # `[key]` after a mapping's key, or the label of a validator: nobody wrote them
        parts.append(str(part))
        owner = kind if is_model(kind) else None
        annotation = _child(kind, part)
    return Place(".".join(parts), annotation, owner)


def alternatives(annotation: object) -> tuple[object, ...]:
    """The members of a union without None; any other type is its own only alternative."""
    bare = annotation if _tag(annotation) is not None else _bare(annotation)
    if get_origin(bare) in (Union, types.UnionType):
        return tuple(member for member in get_args(bare) if member is not type(None))
    return () if bare is None else (bare,)


def tags(annotation: object) -> tuple[str, ...]:
    """The values of the key `type` that tells the members of a union apart, in the order of the union."""
    return tuple(str(value) for choice in alternatives(annotation) for value in _literals(_bare(choice)))


def is_model(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def models_of(annotation: object) -> Iterator[type[BaseModel]]:
    """The models that a field's type allows directly: itself or the members of a union."""
    for choice in alternatives(annotation):
        bare = _bare(choice)
        if is_model(bare):
            yield bare


def _bare(annotation: object) -> object:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _tag(annotation: object) -> str | None:
    if get_origin(annotation) is not Annotated:
        return None
    return next((extra.tag for extra in get_args(annotation)[1:] if isinstance(extra, Tag)), None)


def _is_tagged(choice: object, label: int | str) -> bool:
    """Whether pydantic gives this member of a union this label."""
    if (tag := _tag(choice)) is not None:
        return tag == label
    bare = _bare(choice)
    if is_model(bare):
        return label == bare.__name__ or label in _literals(bare)
    origin = get_origin(bare)
    return isinstance(origin, type) and str(label).startswith(f"{origin.__name__}[")


def _literals(model: object) -> tuple[object, ...]:
    if not is_model(model) or "type" not in model.model_fields:
        return ()
    annotation = model.model_fields["type"].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _has_children(kind: object) -> bool:
    return is_model(kind) or get_origin(kind) in (tuple, list, dict)


def _child(kind: object, part: int | str) -> object:
    if is_model(kind):
        field = kind.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = get_args(kind)
    return arguments[1] if get_origin(kind) is dict else next(iter(arguments), None)
