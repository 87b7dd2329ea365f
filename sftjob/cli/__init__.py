"""The command line: each command is a few lines over `sftjob.app`, and imports what it needs when it is called."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from sftjob import __version__
from sftjob.cli.cluster import register as register_cluster
from sftjob.cli.data import data_app
from sftjob.cli.options import ProfileName, Sets, note, say
from sftjob.cli.submit import register as register_submit
from sftjob.contract import ExitCode
from sftjob.errors import SftjobError, SpecError

if TYPE_CHECKING:
    from sftjob.report import Report
    from sftjob.storage import ObjectStore

__all__ = ["app", "main"]

app = typer.Typer(
    help="One YAML file in; a fine-tuned, evaluated, comparable model out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(data_app, name="data")

SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="The job as a YAML file.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="config.json of a model that is not on this machine.")
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
        finished = run_job(load_spec(spec, overrides=set_ or []), new_run=new_run, evaluate=evaluate, echo=say)
    except PhaseFailed as failed:
        raise typer.Exit(failed.exit_code) from failed
    if finished.evaluated:
        _show([finished.store], None)
    say(f"model    {finished.export_uri}")


@app.command()
def validate(spec: SpecFile, config: ConfigFile = None, set_: Sets = None) -> None:
    """Check a spec, the files that it names on this machine, and whether model, settings and GPU fit together."""
    from sftjob.app.validate import validate as validate_spec
    from sftjob.spec import load_spec

    for line in validate_spec(load_spec(spec, overrides=set_ or []), config=config):
        say(line)


@app.command()
def plan(
    spec: SpecFile,
    *,
    config: ConfigFile = None,
    gpu: Annotated[str | None, typer.Option("--gpu", metavar="PRODUCT", help="Instead of launch.gpu.")] = None,
    price: Annotated[float | None, typer.Option("--price-per-gpu-hour", min=0, help="For the cost.")] = None,
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="Rows of the training data, for the time.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=1, help="Their tokens, instead of --rows.")] = None,
    set_: Sets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Estimate memory, time and cost before a GPU is asked for, and show what the planner chooses and why."""
    from sftjob.app.plan import as_json as plan_json
    from sftjob.app.plan import check_fits
    from sftjob.app.plan import plan as plan_job
    from sftjob.app.plan_text import plan_lines
    from sftjob.spec import load_spec

    overrides = [*(set_ or []), *([f"launch.gpu={gpu}"] if gpu else [])]
    loaded = load_spec(spec, overrides=overrides)
    planned = plan_job(loaded, config=config, price=price, rows=rows, tokens=tokens)
    say(plan_json(planned) if as_json else "\n".join(plan_lines(planned)))
    if loaded.spec.resources.require_fit:
        try:
            check_fits(planned)
        except SpecError as error:
            raise loaded.located(error) from error


@app.command()
def render(
    spec: SpecFile,
    *,
    profile: ProfileName = None,
    form: Annotated[
        Literal["yaml", "json", "dir", "kustomize"],
        typer.Option("--format", help="One stream, a List, or a folder with a file for each object."),
    ] = "yaml",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="The folder of `dir` and `kustomize`.")
    ] = None,
    set_: Sets = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print what would be trained instead, every default filled in.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The model's config.json, for --resolved.")
    ] = None,
) -> None:
    """Print the Kubernetes manifests of a job: `sftjob render job.yaml | kubectl apply -f -`."""
    from sftjob.app.manifests import manifests, resolved_yaml, write_manifests

    if (output is not None) != (form in ("dir", "kustomize")):
        raise SpecError("--output DIR belongs to `--format dir` and `kustomize`", hint="give both, or neither")
    if resolved:
        sys.stdout.write(resolved_yaml(spec, set_ or [], config=config))
        return
    if config is not None:
        raise SpecError("--config is for --resolved", hint="add --resolved, or leave it out")
    if output is None:
        sys.stdout.write(manifests(spec, profile, set_ or [], as_json=form == "json", progress=note))
        return
    for path in write_manifests(output, spec, profile, set_ or [], kustomize=form == "kustomize", progress=note):
        say(f"wrote    {path}")


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
def merge(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Spec file, run folder or s3://…/<run_id>.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Gets the model; not there yet.")],
    model: Annotated[
        Path | None, typer.Option("--model", metavar="DIR", help="The base model's folder, where it has moved.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, max=1, help="Largest difference of logits, as a share of their size.")
    ] = None,
) -> None:
    """Write a finished run's adapter and its base as one model in bf16, when it is still the model that was trained."""
    from sftjob.app.merge import merge_run
    from sftjob.spec import load_spec

    merge_run(run, output, load_spec, model=model, tolerance=tolerance, progress=say)
    say(f"merged   {output}")


@app.command()
def schema(
    profile: Annotated[bool, typer.Option("--profile", help="The schema of a profile instead of a job's.")] = False,
) -> None:
    """Print the JSON schema of a spec, for editors."""
    import json

    from sftjob.spec.schema import job_schema, profile_schema

    say(json.dumps(profile_schema() if profile else job_schema(), indent=2))


register_submit(app)
register_cluster(app)


def main() -> None:
    """Runs the command line; every error of `sftjob.errors` is one line and a documented exit code."""
    with _told_errors():
        app(standalone_mode=True)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        say(f"sftjob {__version__}")
        raise typer.Exit


_EXTRAS: Final = {
    "train": {"tokenizers", "jinja2", "pyarrow", "datasets", "huggingface_hub", "torch", "transformers", "trl", "peft"},
    "s3": {"boto3"},
    "k8s": {"kubernetes", "urllib3"},
    "eval": {"matplotlib"},
}
"""Packages that the core does not bring, by the extra that does."""


@contextmanager
def _told_errors() -> Iterator[None]:
    try:
        yield
    except SftjobError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        extra = next((extra for extra, packages in _EXTRAS.items() if error.name in packages), None)
        if extra is None:
            raise
        print(f"error: this needs the package {error.name}; pip install 'sftjob[{extra}]'", file=sys.stderr)
        sys.exit(ExitCode.CONFIGURATION)
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
    say(terminal(made.document))
    if output is None:
        return
    for path in write_report(made, output):
        say(f"wrote    {path}")
