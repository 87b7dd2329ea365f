"""The command line: each command is a few lines over `sftjob.app`, and imports what it needs when it is called."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sftjob import __version__
from sftjob.contract import ExitCode
from sftjob.errors import SftjobError

if TYPE_CHECKING:
    from sftjob.report import Report
    from sftjob.storage import ObjectStore

app = typer.Typer(
    help="One YAML file in; a fine-tuned, evaluated, comparable model out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="The job as a YAML file.")]
ProfileFile = Annotated[Path | None, typer.Option("--profile", metavar="FILE", help="The platform's half as YAML.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Overrides a field of the spec; may be given several times."),
]


@app.command()
def run(
    spec: SpecFile,
    set_: Sets = None,
    new_run: Annotated[bool, typer.Option("--new-run", help="Start over under another run id.")] = False,
    evaluate: Annotated[bool, typer.Option(help="Compare the result with the base model.")] = True,
) -> None:
    """Train and evaluate on this machine. Called again, it continues or says that all is done."""
    from sftjob.app.run import PhaseFailed
    from sftjob.app.run import run as run_job
    from sftjob.spec import load_spec

    try:
        finished = run_job(load_spec(spec, overrides=set_ or []), new_run=new_run, evaluate=evaluate, echo=_say)
    except PhaseFailed as failed:
        raise typer.Exit(failed.exit_code) from failed
    if finished.evaluated:
        _show([finished.store], None)
    _say(f"model    {finished.uri}/_SUCCESS names its files")


@app.command()
def validate(spec: SpecFile, set_: Sets = None) -> None:
    """Check a spec, the files that it names on this machine, and whether model and settings fit together."""
    from sftjob.app.validate import validate as validate_spec
    from sftjob.spec import load_spec

    for line in validate_spec(load_spec(spec, overrides=set_ or [])):
        _say(line)


@app.command()
def render(spec: SpecFile, profile: ProfileFile = None, set_: Sets = None) -> None:
    """Print the Kubernetes manifests of a job: `sftjob render job.yaml | kubectl apply -f -`."""
    from sftjob.app.manifests import manifests

    sys.stdout.write(manifests(spec, profile, set_ or []))


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Spec files, run folders or s3://…/<run_id>.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="DIR", help="Write the report here.")] = None,
) -> None:
    """Put several evaluated runs on the same base model and data side by side."""
    from sftjob.app.run import find_run
    from sftjob.spec import load_spec

    _show([find_run(reference, load_spec) for reference in runs], output)


@app.command()
def schema(
    profile: Annotated[bool, typer.Option("--profile", help="The schema of a profile instead of a job's.")] = False,
) -> None:
    """Print the JSON schema of a spec, for editors."""
    import json

    from sftjob.spec.schema import job_schema, profile_schema

    _say(json.dumps(profile_schema() if profile else job_schema(), indent=2))


def main() -> None:
    """Runs the command line; every error of `sftjob.errors` is one line and a documented exit code."""
    with _told_errors():
        app(standalone_mode=True)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        _say(f"sftjob {__version__}")
        raise typer.Exit


@contextmanager
def _told_errors() -> Iterator[None]:
    try:
        yield
    except SftjobError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # `sftjob render … | head`: whoever reads has had enough. stdout may not be flushed again at exit.
        sys.stderr.close()
        sys.exit(ExitCode.DONE)
    except SystemExit as leave:
        # click ends with 2 on a wrong command line, where the table says 64.
        sys.exit(ExitCode.SPEC if leave.code == 2 else leave.code)


def _show(stores: "list[ObjectStore]", output: Path | None) -> None:
    """Prints the headline table of a report and, where asked, writes the report's three forms."""
    from sftjob.app.comparison import compare_runs, write_report
    from sftjob.report.terminal import terminal

    made: Report = compare_runs(stores)
    _say(terminal(made.document))
    if output is None:
        return
    for path in write_report(made, output):
        _say(f"wrote    {path}")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
