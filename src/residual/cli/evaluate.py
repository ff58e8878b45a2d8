"""`residual evaluate`: an adapter that was kept, or a store with units switched off: its accuracy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from residual.cli import options as o


def evaluate(
    adapter: Annotated[
        str,
        typer.Argument(
            metavar="ADAPTER",
            help="A folder that `residual train` wrote, or a repository of the hub; or a store, whose units "
            "may be switched off.",
        ),
    ],
    dataset: Annotated[
        str | None,
        typer.Option(
            help="A name as `residual datasets` lists them; of a store, see `residual describe --help`."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    encoder: Annotated[
        str | None, typer.Option(help="Encoder of the adapter. [default: by the name it notes]")
    ] = None,
    off: Annotated[
        list[str] | None,
        typer.Option(help="Of a store: units that are switched off, as 7.2 or mlp.3; can be given again."),
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="Of a store: the weight of a unit, as 7.2=0.5.")
    ] = None,
    lambda_: Annotated[
        list[str] | None,
        typer.Option("--lambda", help="Of a store: the weight of a component of a unit, as 7.2:0=0.5."),
    ] = None,
    mode: Annotated[
        str, typer.Option(help="Of a store: what is taken off is zero, or put at its mean.")
    ] = "zero",
    mask: Annotated[
        Path | None, typer.Option(help="Of a store: all this from a file that `residual explore` saved.")
    ] = None,
    with_: Annotated[
        str | None,
        typer.Option("--adapter", help="Of a store: an adapter, a folder, that is applied before."),
    ] = None,
    json: o.Json = None,
    overwrite: o.Overwrite = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 64,
    device: o.Device = None,
    on_error: Annotated[
        str, typer.Option(help="A picture that can't be read: raise, or skip and list.")
    ] = "raise",
) -> None:
    """Measure an adapter's accuracy beside that of the encoder alone; or a store's with units switched off.

    In brackets: Wilson's 95 % interval over the pictures.

    Examples:

        residual evaluate letters-adapter --dataset letters

        residual evaluate OWNER/NAME --dataset folder:pictures --split val --json result.json

        residual evaluate letters-test --off 7.2,6.0 --mode mean
    """
    from residual.cli.console import check_outputs, json_of, note, out, show_skipped, stages, write_result
    from residual.cli.turned import numbers, numbers_by_component, units
    from residual.errors import ResidualError
    from residual.files import shareable
    from residual.progress import under
    from residual.report import evaluation_table, intervals_note, sentence
    from residual.workflows.evaluate import evaluate_adapter
    from residual.workflows.evaluate_store import evaluate_store, is_store

    check_outputs(overwrite, json_of(json, "evaluate"))
    turned = {"off": off, "weight": weight, "lambda": lambda_, "mask": mask, "adapter": with_}
    if is_store(adapter):
        summary = evaluate_store(
            adapter, off=units(off), weights=numbers(weight), lambdas=numbers_by_component(lambda_),
            mode=mode, mask=mask, adapter=with_, encoder=encoder, dataset=dataset, device=device,
        )  # fmt: skip
    else:
        if given := [f"--{name}" for name, value in turned.items() if value]:
            raise ResidualError(f"For a store alone: {', '.join(given)}. There is none at {adapter!r}.")
        if dataset is None:
            raise ResidualError("An adapter is measured on pictures: name them, --dataset NAME.")
        with stages() as show:
            done = evaluate_adapter(
                adapter, dataset, split, batch_size, on_error, encoder=encoder, device=device,
                progress=under(show, dataset),
            )  # fmt: skip
        summary = {"adapter": shareable(adapter, path=os.path.isdir(adapter)), **done.summary}
    out.print(evaluation_table(summary))
    out.print(intervals_note(summary))
    out.print(sentence(summary))
    for told in summary.get("notes", ()):
        note(told)
    show_skipped(summary["skipped"])
    write_result(json, summary)
