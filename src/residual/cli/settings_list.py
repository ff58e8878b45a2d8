"""`residual settings`: what `--param` and gin files can set."""

from __future__ import annotations

from typing import Annotated

import typer

from residual.cli import options as o


def settings(
    command: Annotated[
        list[str] | None,
        typer.Argument(help="Of which: run, train, encode, analyze, heads, describe, experiment 1, …"),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Of run and train, only what this method uses; can be given again."),
    ] = None,
    search: Annotated[str | None, typer.Option(help="Only those with this in name or meaning.")] = None,
    json: o.Json = None,
    overwrite: o.Overwrite = False,
    cfg: o.Cfg = None,
    param: Annotated[list[str] | None, o.param("FitSettings.epochs=10")] = None,
) -> None:
    """List all settings: what each takes and means, its default, and where that is from.

    A setting is given as `--param NAME=VALUE`, or as a line `NAME = VALUE` of a file, `--cfg FILE`: a file
    over the defaults, a later file over an earlier one, --param over files, and options such as --seeds over
    files, too. On the command line, what would have no effect is refused, and so is what says two things;
    files may be shared by commands, and what one doesn't use is told in a line.

    Examples:

        residual settings train --method residual_star

        residual settings experiment 4

        residual settings run --cfg mine.gin --param run.seeds=3    # the values, and where they are from

        residual settings --search rate
    """
    from residual.cli.console import check_outputs, json_of, out, write_result
    from residual.cli.settings import list_settings
    from residual.report.settings import settings_lines, settings_result

    check_outputs(overwrite, json_of(json, "settings"))
    rows = list_settings(" ".join(command or []), cfg or [], param or [], method or [], search or "")
    out.print(settings_lines(rows))
    write_result(json, settings_result(rows))
