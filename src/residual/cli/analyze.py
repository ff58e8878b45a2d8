"""`residual analyze`: how the units of a store are shaped, and how alike they are to those of another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Examples:

    residual analyze letters-train --figures figures --json letters.json

    residual analyze letters-train --against mnist-train

    residual analyze letters-train --kinds head --param GeometrySettings.samples=2000
"""


def analyze(
    store: Annotated[str, typer.Argument(help="A store: a folder or an address.")],
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
    figures: Annotated[Path | None, typer.Option(help="Draw into this folder, PNG and SVG.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, … [default: a GPU if there is one]")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every unit's numbers here, as JSON.")] = None,
    cfg: Annotated[
        list[Path] | None, typer.Option(help="A gin file of settings; can be given again.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(help="A setting, such as GeometrySettings.threshold=0.95; can be given again."),
    ] = None,
) -> None:
    """Measure the dimension of every head's and MLP's contributions, by spectrum and by neighbours.

    The table has the mean of each layer, ± the standard deviation over its heads.
    """
    from residual.cli.console import out, stages
    from residual.cli.settings import read_analyze_settings
    from residual.files import check_writable, write_json
    from residual.report.figures import check_matplotlib
    from residual.report.geometry import layers_table
    from residual.workflows.analyze import analyze_store

    if figures:
        check_matplotlib()
    settings = read_analyze_settings(cfg or [], param or [])
    for path in filter(None, (json, figures and figures / "shapes.png")):
        check_writable(path)
    with stages() as show:
        told = show
        found = analyze_store(store, against, kinds, *settings, device=device, progress=told)
    out.print(layers_table(found.shapes, found.title))
    if found.similar is not None:
        out.print(layers_table(found.similar, found.title_similar, similar=True))
    for path in found.draw(figures) if figures else ():
        out.print(f"{path}")
    if json:
        write_json(json, found.result)


analyze.__doc__ = f"{analyze.__doc__}\n{EXAMPLE}"
