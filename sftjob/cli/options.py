"""What the commands share: an option that many take, and lines for people."""

import sys
from typing import Annotated

import typer

Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Overrides a field of the spec; may be given several times."),
]


def say(line: str) -> None:
    print(line, flush=True)


def note(line: str) -> None:
    """A line beside the output."""
    print(line, file=sys.stderr, flush=True)
