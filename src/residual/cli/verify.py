"""`residual verify`: whether a store is what was written."""

from __future__ import annotations

import typer

from residual.cli import options as o


def verify(store: o.Store, json: o.Json = None, overwrite: o.Overwrite = False) -> None:
    """Read every byte of a store; say which files aren't what was written, and which samples that spoils.

    Exit code 1 if there are any, or if samples are missing.

    Example:

        residual verify letters-train
    """
    from residual.cli import HINTS
    from residual.cli.console import check_outputs, err, json_of, out, stages, write_result
    from residual.errors import DamagedStoreError, printable
    from residual.files import shareable
    from residual.store.disk import ResidualStore

    check_outputs(overwrite, json_of(json, "verify"))
    opened = ResidualStore.open(store, cut_off=True, damaged=True)
    with stages() as show:
        damages = opened.verify(show)
    count = f"{len(damages) or 'no'} damaged file{'' if len(damages) == 1 else 's'}"
    out.print(printable(f"{opened}: {count}."))
    for damage in damages:
        err.print(printable(f"{damage}"))
    rows = [{"file": each.file, "samples": each.samples, "reason": each.reason} for each in damages]
    result = {"store": shareable(store, path=True), "samples": len(opened), "complete": opened.complete}
    write_result(json, {**result, "damages": rows})
    if opened.shortfall:
        err.print(printable(opened.shortfall))
    if damages:
        err.print(HINTS[DamagedStoreError])
    if damages or not opened.complete:
        raise typer.Exit(1)
