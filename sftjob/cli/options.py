"""What the commands share: options that many take, and lines for people."""

import sys
from typing import Annotated

import typer

from sftjob.contract import UserEnv

Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Overrides a field of the spec; may be given several times."),
]
ProfileName = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="FILE|NAME",
        help="The platform's half: a YAML file, or the name of one in the config folder.",
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", help="Instead of the profile's, or of the kubeconfig's current one."),
]
Context = Annotated[str | None, typer.Option("--context", help="Of the kubeconfig, instead of the current one.")]
EndpointUrl = Annotated[
    str | None,
    typer.Option(
        "--endpoint-url",
        metavar="URL",
        envvar=UserEnv.ENDPOINT_URL.value,
        help="The S3 store as this machine reaches it, where pods use another address.",
    ),
]


def say(line: str) -> None:
    print(line, flush=True)


def note(line: str) -> None:
    """A line beside the output."""
    print(line, file=sys.stderr, flush=True)
