"""`residual analyze`: how the units of a store are shaped, and how alike they are to those of another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residual.cli import options as o


def analyze(
    store: o.Store,
    against: Annotated[
        str | None,
        typer.Option(
            help="Another store of the same encoder, or a file of bases (.safetensors), of other data or "
            "tokens: how alike are the components of each unit?"
        ),
    ] = None,
    kinds: Annotated[
        str | None, typer.Option(help="Kinds of unit, with commas between. [default: all that are kept]")
    ] = None,
    figures: o.Figures = None,
    device: o.Device = None,
    json: Annotated[Path | None, typer.Option(help="Write every unit's numbers here, as JSON.")] = None,
    overwrite: o.Overwrite = False,
    cfg: o.Cfg = None,
    param: Annotated[list[str] | None, o.param("GeometrySettings.threshold=0.95")] = None,
) -> None:
    """Measure the dimension of every head's and MLP's contributions, by spectrum and by neighbours.

    The table has the mean of each layer, and the standard deviation (SD) over its heads.

    Examples:

        residual analyze letters-train --figures figures --json letters.json

        residual analyze letters-train --against mnist-train

        residual analyze letters-train --kinds head --param GeometrySettings.samples=2000
    """
    from residual.cli.console import check_outputs, json_of, out, stages, steps, write_result
    from residual.cli.settings import read_analyze_settings
    from residual.outputs import Output
    from residual.products import FIGURES
    from residual.report import analysis_figures, check_matplotlib, layers_table, save_figures
    from residual.report.figures import ANALYSIS_FIGURES, figure_files
    from residual.workflows.analyze import analyze_store

    if figures:
        check_matplotlib()
    settings = read_analyze_settings(cfg or [], param or [], against is not None)
    check_outputs(
        overwrite,
        json_of(json, "analyze"),
        Output("--figures", figures, FIGURES, figure_files(ANALYSIS_FIGURES)),
    )
    with stages() as show:
        analysis = analyze_store(store, against, kinds, *settings, device=device, progress=show)
    of = analysis.shapes, analysis.title, analysis.similar, analysis.title_similar
    with steps() as step:
        with step():
            out.print(layers_table(analysis.shapes, analysis.title))
            if analysis.similar is not None:
                out.print(layers_table(analysis.similar, analysis.title_similar, similar=True))
        with step():
            write_result(json, analysis.result)
        if figures:
            for path in save_figures(analysis_figures(*of), figures, overwrite):
                out.print(f"{path}")
