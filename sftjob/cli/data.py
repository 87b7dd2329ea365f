"""`sftjob data …`: looks at data before they are trained on."""

from pathlib import Path
from typing import Annotated

import typer

from sftjob.cli.options import Sets, note, say

data_app = typer.Typer(help="Look at data before they are trained on.", no_args_is_help=True, rich_markup_mode=None)

Source = Annotated[Path, typer.Argument(metavar="SPEC|FILE", help="A job's spec (.yaml, .yml) or a data file.")]
Format = Annotated[str | None, typer.Option("--format", help="Shape of the file's rows; found by itself if not given.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="A=B", help="The format's column A is called B in the file; several times."),
]
HeldOut = Annotated[Path | None, typer.Option("--eval", metavar="FILE", help="A file of held-out rows.")]
ModelName = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="For tokens and template: a folder, owner/name@revision or s3://…"),
]
Template = Annotated[
    str | None, typer.Option("--template", help="model (its own), chatml, or a Jinja file; by default the model's own.")
]
TrainOn = Annotated[str | None, typer.Option("--train-on", help="assistant (default), last_assistant or all.")]
MaxLength = Annotated[int | None, typer.Option("--max-length", min=2, help="Tokens of a row.")]


@data_app.command()
def audit(
    source: Source,
    *,
    held_out: HeldOut = None,
    model: ModelName = None,
    template: Template = None,
    format_: Format = None,
    column: Columns = None,
    train_on: TrainOn = None,
    max_length: MaxLength = None,
    set_: Sets = None,
    overlong: Annotated[
        str | None, typer.Option("--overlong", help="For longer rows: truncate (default), split or drop.")
    ] = None,
    max_overlap: Annotated[
        float | None, typer.Option("--max-overlap", help="Share of held-out rows that may be asked in training, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Count rows, tokens, duplicates and overlap; fail on data that nobody should train on."""
    from sftjob.app.data import audit_data
    from sftjob.app.data_source import open_data
    from sftjob.app.data_text import audit_lines
    from sftjob.errors import DataError

    options = _data_options(format_, column, template, train_on, overlong=overlong, max_overlap=max_overlap)
    with open_data(
        source, held_out, options, model=model, max_length=max_length, overrides=set_, progress=note
    ) as given:
        result = audit_data(given, note)
    say(result.audit.to_json().decode() if as_json else "\n".join(audit_lines(result.audit)))
    if result.wrong:
        raise DataError(result.wrong)


@data_app.command()
def preview(
    source: Source,
    *,
    held_out: HeldOut = None,
    model: ModelName = None,
    template: Template = None,
    format_: Format = None,
    column: Columns = None,
    train_on: TrainOn = None,
    max_length: MaxLength = None,
    set_: Sets = None,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, max=1000, help="So many rows.")] = 3,
    skip: Annotated[int, typer.Option("--skip", min=0, help="From this row on.")] = 0,
    split: Annotated[str, typer.Option("--split", help="train or eval.")] = "train",
    page: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page instead.")] = None,
) -> None:
    """Show rows as the model will see them, with the trained tokens in colour."""
    from sftjob.app.data import preview_data
    from sftjob.app.data_source import open_data
    from sftjob.app.data_text import preview_html, preview_text

    options = _data_options(format_, column, template, train_on)
    with open_data(
        source, held_out, options, model=model, max_length=max_length, overrides=set_, progress=note
    ) as given:
        shown = preview_data(given, split, rows, skip=skip, progress=note)
    if page is None:
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)
        console.print(preview_text(shown, marks=console.color_system is None))
        return
    from sftjob.app.data import require_no_folder
    from sftjob.storage.local import placing

    require_no_folder(page)
    with placing(page) as file:
        file.write(preview_html(shown, str(source)).encode())
    say(f"wrote    {page}")


@data_app.command()
def convert(
    source: Source,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="Gets ChatML JSON Lines.")],
    format_: Format = None,
    column: Columns = None,
) -> None:
    """Write training rows as ChatML JSON Lines: a `messages` column, and `tools` where there are any."""
    from sftjob.app.data import convert_data
    from sftjob.app.data_source import open_data

    with open_data(source, None, _data_options(format_, column), progress=note) as given:
        say(f"wrote    {output}: {convert_data(given, output, note):,} rows")


def _data_options(
    format_: str | None,
    column: list[str] | None,
    template: str | None = None,
    train_on: str | None = None,
    **more: object,
) -> dict[str, object]:
    """Options of a spec's data block, as far as they were given on the command line."""
    from sftjob.app.data_source import column_names, template_option

    given = {
        "format": format_,
        "columns": column_names(column) if column else None,
        "template": template_option(template) if template else None,
        "train_on": train_on,
        **more,
    }
    return {key: value for key, value in given.items() if value is not None}
