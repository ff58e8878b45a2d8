"""`residual bases`: principal components of units, from stores or from the parts of a run without one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residual.progress import named

EXAMPLE = """
Examples:

    residual bases letters-train --out bases.safetensors

    residual bases imagenet-train --kinds head,mlp --out bases.safetensors

    residual bases part-1.moments part-2.moments --out bases.safetensors
"""


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
    device: Annotated[str | None, typer.Option(help="cpu, cuda, … [default: a GPU if there is one]")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")] = None,
) -> None:
    """Fit the principal components of every head (or MLP) in one pass over stores."""
    from residual.cli.console import out as stdout
    from residual.cli.console import stages
    from residual.files import check_writable, write_json
    from residual.workflows.encode import bases_of

    for path in filter(None, (json, out)):
        check_writable(path)
    with stages() as show:
        result = bases_of(sources, out, kinds, device, named(show, "bases"))
    stdout.print(result["sentence"])
    if json:
        write_json(json, result)


bases.__doc__ = f"{bases.__doc__}\n{EXAMPLE}"
