"""`residual verify`: whether a store is what was written."""

from __future__ import annotations

from typing import Annotated

import typer

from residual.cli import options as o


def verify(
    store: o.Store,
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Read so many shards only, chosen at random. [default: all]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice.")] = 0,
    json: o.Json = None,
    overwrite: o.Overwrite = False,
) -> None:
    """Read every byte of a store; say which files aren't what was written, and which samples that spoils.

    Exit code 1 if there are any, or if samples are missing. Of a large store a sample tells soon how far it
    can be trusted: it is read beside all that isn't of coordinates, and what it shows of the rest is said.

    Example:

        residual verify letters-train
        residual verify s3://bucket/laion-train --sample 300
    """
    from residual.cli import HINTS
    from residual.cli.console import check_outputs, err, json_of, out, stages, write_result
    from residual.errors import DamagedStoreError, printable
    from residual.files import shareable
    from residual.store.disk import ResidualStore

    check_outputs(overwrite, json_of(json, "verify"))
    opened = ResidualStore.open(store, cut_off=True, damaged=True)
    with stages() as show:
        damages = opened.verify(show, sample=sample, seed=seed)
    count = f"{len(damages) or 'no'} damaged file{'' if len(damages) == 1 else 's'}"
    out.print(printable(f"{opened}: {count}."))
    if damages.shown:
        out.print(printable(damages.shown))
    for damage in damages:
        err.print(printable(f"{damage}"))
    rows = [{"file": each.file, "samples": each.samples, "reason": each.reason} for each in damages]
    result = {"store": shareable(store, path=True), "samples": len(opened), "complete": opened.complete}
    read = {"shards": damages.of, "shards_read": list(damages.shards)} if damages.shown else {}
    write_result(json, {**result, **read, "damages": rows})
    if opened.shortfall:
        err.print(printable(opened.shortfall))
    if damages:
        err.print(HINTS[DamagedStoreError])
    if damages or not opened.complete:
        raise typer.Exit(1)
