"""`residual verify`: whether a store is what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Example:

    residual verify letters-train
"""


def verify(
    store: Annotated[str, typer.Argument(help="A store: a folder or an address.")],
    json: Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")] = None,
) -> None:
    """Read every byte of a store; say which files aren't what was written, and which samples that spoils.

    Exit code 1 if there are any.
    """
    from residual.cli import HINTS
    from residual.cli.console import err, out, stages
    from residual.errors import DamagedStoreError
    from residual.files import check_writable, write_json
    from residual.store.disk import ResidualStore

    if json:
        check_writable(json)
    opened = ResidualStore.open(store)
    with stages() as show:
        found = opened.verify(show)
    out.print(f"{opened}: {len(found) or 'no'} damaged file{'' if len(found) == 1 else 's'}.")
    for damage in found:
        err.print(str(damage))
    if found:
        err.print(HINTS[DamagedStoreError])
    if json:
        rows = [{"file": one.file, "samples": one.samples, "reason": one.reason} for one in found]
        write_json(
            json, {"store": store, "samples": len(opened), "complete": opened.complete, "damages": rows}
        )
    if found:
        raise typer.Exit(1)


verify.__doc__ = f"{verify.__doc__}\n{EXAMPLE}"
