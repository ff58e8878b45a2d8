"""`residual encode`: an encoder over a dataset once, into a store that every later step reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residual.progress import named

EXAMPLE = """
Examples:

    residual encode --dataset letters --split train --out letters-train

The third of eight writers of one store:

    residual encode --encoder openclip_l --dataset imagenet --out imagenet --part 3/8

Nothing but the principal components of all patches:

    residual encode --dataset letters --out b.safetensors --bases-only --pooling patches
"""


def encode(
    out: Annotated[
        str,
        typer.Option(help="The store: a folder, or an address such as s3://…; with --bases-only a file."),
    ],
    encoder: Annotated[
        str | None, typer.Option(help="A name as `residual encoders` lists them. [default: picto]")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="A name as `residual datasets` lists them. [default: mnist]")
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, val or test. [default: train]")] = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            help="own, cls, avg, avg:all, token:INDEX; all or patches keep every token. [default: own]"
        ),
    ] = None,
    kinds: Annotated[
        str | None,
        typer.Option(help="Kinds of unit to keep, with commas between. [default: emb,mlp,head]"),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float16 or float32. [default: float16]")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many images.")] = None,
    part: Annotated[
        str, typer.Option(help="Write one of several parts, such as 2/8: writers can be at work at once.")
    ] = "1/1",
    bases_only: Annotated[
        bool, typer.Option("--bases-only", help="Store nothing: fit the principal components on the way.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images at a time. [default: 64]")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read images. [default: the cores, on a GPU; else a thread]"),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, … [default: a GPU if there is one]")] = None,
    on_error: Annotated[
        str | None,
        typer.Option(help="An image that can't be read: raise, or skip and list. [default: raise]"),
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Of hf: and disk:, the column of images.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Of hf: and disk:, the column of labels.")] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Refuse a split that isn't the one that this manifest is of.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")] = None,
    cfg: Annotated[
        list[Path] | None, typer.Option(help="A gin file of settings; can be given again.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="A setting, such as encode.batch_size=256; can be given again.")
    ] = None,
) -> None:
    """Run an encoder over a split once and keep every image's coordinates; or only their bases.

    Stopped by anything and called again, it goes on where it was.
    """
    from residual.cli.console import err, stages
    from residual.cli.console import out as stdout
    from residual.cli.settings import read_encode_settings
    from residual.data import load_dataset
    from residual.encoders.load import load_encoder
    from residual.files import check_writable, write_json
    from residual.workflows.encode import Job, parse_part

    options = read_encode_settings(
        cfg or [], param or [], encoder=encoder, dataset=dataset, split=split, pooling=pooling, kinds=kinds,
        dtype=dtype, batch_size=batch_size, workers=workers, on_error=on_error, limit=limit,
    )  # fmt: skip
    if json:
        check_writable(json)
    job = Job.of(options, out, parse_part(part))
    images = load_dataset(
        options["dataset"], options["split"], image_column=image_column, label_column=label_column,
        manifest=manifest,
    )  # fmt: skip
    if options["limit"]:
        images = images.subset(range(min(options["limit"], len(images))))
    model = load_encoder(options["encoder"], device=device)
    with stages() as show:
        told = named(show, f"{images.name}: encode {images.split}")
        result = job.bases(model, images, told) if bases_only else job.store(model, images, told)
    stdout.print(result["sentence"])
    for sample, reason in result["skipped"].items():
        err.print(f"left out, can't be read: {sample} ({reason})")
    if json:
        write_json(json, result)


encode.__doc__ = f"{encode.__doc__}\n{EXAMPLE}"
