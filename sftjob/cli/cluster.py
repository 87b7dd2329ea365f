"""`sftjob status | logs | wait | cancel | list`: what becomes of runs on a cluster."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from sftjob.cli.options import Context, EndpointUrl, Namespace, ProfileName, note, say
from sftjob.contract import Component, ExitCode

if TYPE_CHECKING:
    from sftjob.app.run_target import Target

RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="A run id, the beginning of one, or the spec file of the run.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the top level of the command line."""
    for name, command in (("status", status), ("logs", logs), ("wait", wait), ("cancel", cancel), ("list", list_)):
        app.command(name)(command)


def status(
    run: RunName,
    *,
    profile: ProfileName = None,
    namespace: Namespace = None,
    context: Context = None,
    endpoint_url: EndpointUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show where a run stands: phase, step, loss, time left, the newest checkpoint, and why it is pending."""
    from sftjob.app.status import read_status, status_json
    from sftjob.app.status_text import status_lines

    found = read_status(_target(run, profile, namespace, context, endpoint_url), warn=note)
    say(json.dumps(status_json(found), indent=2) if as_json else "\n".join(status_lines(found)))


def logs(
    run: RunName,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run is over.")] = False,
    component: Annotated[
        Component | None, typer.Option("--component", help="Only these pods; otherwise training and evaluation.")
    ] = None,
    tail: Annotated[int | None, typer.Option("--tail", min=0, help="So many last lines of each pod.")] = None,
    profile: ProfileName = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Print the logs of all of a run's pods, each line with the pod's index, across restarts."""
    from sftjob.app.logs import follow_logs, show_logs

    show = follow_logs if follow else show_logs
    try:
        show(_target(run, profile, namespace, context), say, note, component=component, tail_lines=tail)
    except KeyboardInterrupt as stop:
        raise typer.Exit from stop


def wait(
    run: RunName,
    *,
    timeout: Annotated[float | None, typer.Option("--timeout", min=0, metavar="SECONDS", help="Stop waiting.")] = None,
    profile: ProfileName = None,
    namespace: Namespace = None,
    context: Context = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Wait until training and evaluation are over; end with 0, or with the failed container's exit code."""
    from sftjob.app.wait import TimedOut
    from sftjob.app.wait import wait as wait_for

    try:
        code = wait_for(_target(run, profile, namespace, context, endpoint_url), say, timeout=timeout)
    except (TimedOut, KeyboardInterrupt) as stop:
        note(f"note: stopped waiting; {str(stop) or 'the run goes on'}")
        raise typer.Exit(ExitCode.INTERRUPTED) from stop
    raise typer.Exit(code)


def cancel(
    run: RunName,
    *,
    profile: ProfileName = None,
    namespace: Namespace = None,
    context: Context = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """End a run: its pods save a checkpoint, then everything of it that runs is gone."""
    from sftjob.app.cancel import cancel as cancel_run

    cancel_run(_target(run, profile, namespace, context, endpoint_url), say)


def list_(
    *,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of the whole cluster.")] = False,
    profile: ProfileName = None,
    namespace: Namespace = None,
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    from sftjob.app.list_runs import list_json, list_lines, list_runs
    from sftjob.app.run_target import connect_to
    from sftjob.app.where import Where

    cluster, _ = connect_to(Where(profile=profile, namespace=namespace, context=context), progress=note)
    runs = list_runs(cluster, all_namespaces=all_namespaces)
    if as_json:
        say(json.dumps(list_json(runs), indent=2))
    elif runs:
        say("\n".join(list_lines(runs, namespaces=all_namespaces)))
    else:
        note(f"note: no runs in {'the cluster' if all_namespaces else f'namespace {cluster.namespace}'}")


def _target(
    run: str, profile: str | None, namespace: str | None, context: str | None, endpoint_url: str | None = None
) -> "Target":
    from sftjob.app.run_target import find_target
    from sftjob.app.where import Where

    where = Where(profile=profile, namespace=namespace, context=context, endpoint_url=endpoint_url)
    return find_target(run, where, progress=note)
