"""`sftjob stage`, `submit` and `fetch`: a job's way to the cluster, and its results' way back."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sftjob.cli.options import Context, EndpointUrl, Namespace, ProfileName, Sets, note, say

SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="The job as a YAML file.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(stage)
    app.command()(submit)
    app.command()(fetch)


def stage(
    spec: SpecFile,
    profile: ProfileName = None,
    set_: Sets = None,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Gets the spec to render; else it is printed.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read back what is there, and repair it.")] = False,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Upload a spec's local data and model, and write the spec that names them by content: it can be rendered."""
    from sftjob.app.profiles import find_profile
    from sftjob.app.stage import stage as stage_spec
    from sftjob.spec import load_spec

    loaded = load_spec(spec, overrides=set_ or [])
    platform = find_profile(profile, progress=note)
    text = stage_spec(loaded, platform, endpoint_url=endpoint_url, verify=verify, progress=note)
    if output is None:
        sys.stdout.write(text)
        return
    from sftjob.storage.local import placing

    with placing(output) as file:
        file.write(text.encode())
    given = f" --profile {profile}" if profile else ""
    note(f"wrote    {output}; next: sftjob render {output}{given} | kubectl apply --server-side --force-conflicts -f -")


def submit(
    spec: SpecFile,
    profile: ProfileName = None,
    set_: Sets = None,
    *,
    namespace: Namespace = None,
    context: Context = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="config.json of a model that is not on this machine."),
    ] = None,
    new_run: Annotated[bool, typer.Option("--new-run", help="Start over under another run id.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the server, and change nothing.")] = False,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Train and evaluate on a cluster. Called again, it does what is still to be done, or says that nothing is."""
    from sftjob.app.submit import submit as submit_job
    from sftjob.app.where import Where
    from sftjob.spec import load_spec

    loaded = load_spec(spec, overrides=set_ or [])
    where = Where(profile=profile, namespace=namespace, context=context, endpoint_url=endpoint_url)
    done = submit_job(loaded, where, config=config, new_run=new_run, dry_run=dry_run, progress=note)
    say(f"run      {done.run_id} in namespace {done.namespace}" + (f" {done.said}" if done.said else ""))
    within = "".join(f" {name} {value}" for name, value in (("--profile", profile), ("-n", namespace)) if value)
    command, others = ("fetch", "") if done.done else ("status", "    (or: logs -f, wait, cancel)")
    if not dry_run:
        say(f"next     sftjob {command} {done.run_id}{within}{others}")


def fetch(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run id, spec file, run folder or s3://…/<run_id>.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Not there yet; by default the run's id.")
    ] = None,
    profile: ProfileName = None,
    *,
    report_only: Annotated[bool, typer.Option("--report-only", help="Leave the weights where they are.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Fetch a run's weights and report from the store, every file verified."""
    from sftjob.app.fetch import fetch as fetch_run
    from sftjob.app.where import Where
    from sftjob.spec import load_spec

    where = Where(profile=profile, namespace=namespace, context=context, endpoint_url=endpoint_url)
    done = fetch_run(run, output, where, load_spec, report_only=report_only, progress=note)
    for part in done.parts:
        say(f"fetched  {done.folder / part}")
