"""Values deep in the dicts of the API, whatever is missing or of another kind on the way."""

from datetime import datetime
from typing import TypeAlias

from sftjob.render import Json, Manifest

Step: TypeAlias = str | int
"""A key, or a position in a list."""


def dig(manifest: Json, *path: Step) -> Json:
    """The value at a path of keys and positions; None where there is none."""
    for step in path:
        if isinstance(manifest, dict) and isinstance(step, str):
            manifest = manifest.get(step)
        elif isinstance(manifest, list) and isinstance(step, int) and step < len(manifest):
            manifest = manifest[step]
        else:
            return None
    return manifest


def part(manifest: Json, *path: Step) -> Manifest:
    """The object there, or an empty one."""
    found = dig(manifest, *path)
    return found if isinstance(found, dict) else {}


def parts(manifest: Json, *path: Step) -> list[Manifest]:
    """The objects of the list there."""
    found = dig(manifest, *path)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def text(manifest: Json, *path: Step) -> str:
    """The string there, or an empty one."""
    found = dig(manifest, *path)
    return found if isinstance(found, str) else ""


def number(manifest: Json, *path: Step) -> int:
    """The whole number there, or 0."""
    found = dig(manifest, *path)
    return found if isinstance(found, int) else 0


def time_at(manifest: Json, *path: Step) -> datetime | None:
    """The point in time there, in UTC."""
    try:
        return datetime.fromisoformat(text(manifest, *path))
    except ValueError:
        return None
