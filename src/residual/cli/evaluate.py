"""`residual evaluate`: an adapter that was kept, on pictures of its classes."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from residual.cli import options as o


def evaluate(
    adapter: Annotated[
        str, typer.Argument(help="A folder that `residual train` wrote, or a repository of the hub.")
    ],
    dataset: Annotated[str, typer.Option(help="A name as `residual datasets` lists them.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    encoder: Annotated[
        str | None, typer.Option(help="Encoder of the adapter. [default: by the name it notes]")
    ] = None,
    json: o.Json = None,
    overwrite: o.Overwrite = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 64,
    device: o.Device = None,
    on_error: Annotated[
        str, typer.Option(help="A picture that can't be read: raise, or skip and list.")
    ] = "raise",
) -> None:
    """Measure an adapter's accuracy beside that of the encoder alone.

    In brackets: Wilson's 95 % interval over the pictures.

    Examples:

        residual evaluate letters-adapter --dataset letters

        residual evaluate OWNER/NAME --dataset folder:pictures --split val --json result.json
    """
    from residual.cli.console import check_outputs, json_of, out, show_skipped, stages, write_result
    from residual.files import shareable
    from residual.progress import under
    from residual.report import evaluation_table, intervals_note, sentence
    from residual.workflows.evaluate import evaluate_adapter

    check_outputs(overwrite, json_of(json, "evaluate"))
    with stages() as show:
        done = evaluate_adapter(
            adapter, dataset, split, batch_size, on_error, encoder=encoder, device=device,
            progress=under(show, dataset),
        )  # fmt: skip
    out.print(evaluation_table(done.summary))
    out.print(intervals_note(done.summary))
    out.print(sentence(done.summary))
    show_skipped(done.summary["skipped"])
    write_result(json, {"adapter": shareable(adapter, path=os.path.isdir(adapter)), **done.summary})
