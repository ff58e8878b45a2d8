"""`residual evaluate`: an adapter that was kept, on pictures of its classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Examples:

    residual evaluate letters-adapter --dataset letters

    residual evaluate OWNER/NAME --dataset folder:pictures --split val --json result.json
"""


def evaluate(
    adapter: Annotated[
        str, typer.Argument(help="A folder that `residual train` wrote, or a repository of the hub.")
    ],
    dataset: Annotated[str, typer.Option(help="A name as `residual datasets` lists them.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    encoder: Annotated[
        str | None, typer.Option(help="Encoder of the adapter. [default: by the name it notes]")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 64,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, … [default: a GPU if there is one]")] = None,
    on_error: Annotated[
        str, typer.Option(help="A picture that can't be read: raise, or skip and list.")
    ] = "raise",
) -> None:
    """Measure an adapter's accuracy beside that of the encoder alone.

    ± is twice the standard error of the choice of pictures.
    """
    from residual.adapters.adapted_encoder import AdaptedEncoder
    from residual.cli.console import err, out, stages
    from residual.data import load_dataset
    from residual.encoders.load import load_encoder
    from residual.files import check_writable, write_json
    from residual.report.tables import evaluation_table
    from residual.workflows.evaluate import evaluate_encoder

    if json:
        check_writable(json)
    pictures = load_dataset(dataset, split)
    model = None if encoder is None else load_encoder(encoder, device=device)
    adapted = AdaptedEncoder.from_pretrained(adapter, model, device)
    with stages() as show:
        done = evaluate_encoder(
            adapted, pictures, batch_size, on_error, lambda *step: show(f"{dataset}: evaluate", *step)
        )
    out.print(evaluation_table(done.summary))
    for sample in done.summary["skipped"]:
        err.print(f"left out, can't be read: {sample}")
    if json:
        write_json(json, {"adapter": adapter, **done.summary})


evaluate.__doc__ = f"{evaluate.__doc__}\n{EXAMPLE}"
