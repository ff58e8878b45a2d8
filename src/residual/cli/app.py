"""All commands under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from residual import __version__
from residual.cli.analyze import analyze
from residual.cli.bases import bases
from residual.cli.datasets import datasets
from residual.cli.describe import describe
from residual.cli.encode import encode
from residual.cli.encoders import encoders
from residual.cli.evaluate import evaluate
from residual.cli.experiment import experiment
from residual.cli.explore import explore
from residual.cli.heads import heads
from residual.cli.map import map_
from residual.cli.run import run
from residual.cli.settings_list import settings
from residual.cli.train import train
from residual.cli.verify import verify

app = typer.Typer(
    help="Open up vision transformers and re-tune them with a few thousand numbers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(run)
app.command()(train)
app.command()(evaluate)
app.command()(encode)
app.command()(bases)
app.command()(verify)
app.command()(analyze)
app.command()(heads)
app.command()(describe)
app.command("map")(map_)
app.command()(explore)
app.command()(experiment)
app.command()(encoders)
app.command()(datasets)
app.command()(settings)


def _version(wanted: bool | None) -> None:
    if wanted:
        typer.echo(f"residual-vit {__version__}")
        raise typer.Exit


@app.callback()
def residual(
    show_version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; after a command, too.")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", help="No progress and no notes, only results and errors; after a command, too."
        ),
    ] = False,
) -> None:
    """Open up vision transformers and re-tune them with a few thousand numbers."""
