"""What a file says, where it says it, and what is wrong with how it says it, before any model looks at it."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from sftjob.errors import Problem
from sftjob.spec.values import Json, clip

PLACEHOLDER: Final = "?"
"""Stands for a refused value, so that the rest can still be validated."""
_MAX_PROBLEMS: Final = 50


@dataclass(frozen=True)
class Document:
    """A file's data with the origin of each field."""

    value: Json | None = None
    """None when the text could not be read to its end."""
    lines: dict[str, int] = field(default_factory=dict)
    """1-based line of each field by its dotted path; items are `data.train.0`, the document is the empty path."""
    problems: tuple[Problem, ...] = ()
    """With line and field, without a file."""
    refused: frozenset[str] = frozenset()
    """Fields whose value is a placeholder; `problems` says why."""
    origins: dict[str, str] = field(default_factory=dict)
    """`--set a.b=…` for each path that does not come from the file."""
    is_block: bool = False
    """The document is a list or mapping in block style, not between brackets."""


def located(
    problems: Iterable[Problem], file: str, lines: dict[str, int], origins: dict[str, str]
) -> tuple[Problem, ...]:
    """Gives problems their places: each once, the file's first and by line, at most 50.

    A problem that has a file or a line keeps it; the others get those of their field or of its nearest parent.
    """
    placed = [_placed(problem, file, lines, origins) for problem in problems]
    unique = sorted(dict.fromkeys(placed), key=lambda problem: (problem.file != file, problem.line))
    more = len(unique) - _MAX_PROBLEMS
    if more <= 0:
        return tuple(unique)
    return (*unique[:_MAX_PROBLEMS], Problem(file=file, reason=f"{more} more problems", hint="repair these first"))


def _placed(problem: Problem, file: str, lines: dict[str, int], origins: dict[str, str]) -> Problem:
    name = problem.field
    short = replace(problem, field=".".join(clip(part) for part in name.split(".")))
    if problem.file or problem.line:
        return replace(short, file=problem.file or file)
    while name and name not in lines and name not in origins:
        name = name.rpartition(".")[0]
    if name in origins:
        return replace(short, file=origins[name])
    return replace(short, file=file, line=lines.get(name, 0))
