"""`residual bases`: principal components of units, from stores or from the parts of a run without one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residual.cli import options as o


def bases(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Stores of one encoder; or what the parts of `residual encode --bases-only` left."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file of bases (.safetensors).")],
    kinds: Annotated[
        str | None, typer.Option(help="Kinds of unit, with commas between. [default: head, or the parts']")
    ] = None,
    device: o.Device = None,
    on: o.On = None,
    json: o.Json = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Fit the principal components of every head (or MLP) in one pass over stores.

    Examples:

        residual bases letters-train --out bases.safetensors

        residual bases imagenet-train --kinds head,mlp --out bases.safetensors

        residual bases s3://bucket/imagenet --on ray --out bases.safetensors

        residual bases part-1.moments part-2.moments --out bases.safetensors
    """
    from residual.cli.console import check_outputs, json_of, stages, write_result
    from residual.cli.console import out as stdout
    from residual.outputs import Output
    from residual.products import BASES
    from residual.progress import named
    from residual.workflows.encode import bases_of

    check_outputs(overwrite, Output("--out", out, BASES), json_of(json, "bases"))
    with stages() as show:
        result = bases_of(sources, out, kinds, device, named(show, "bases"), on=on, overwrite=overwrite)
    stdout.print(result["sentence"])
    write_result(json, result)
