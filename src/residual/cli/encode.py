"""`residual encode`: an encoder over a dataset once, into a store that every later step reads."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from residual.cli import options as o


def encode(
    out: Annotated[
        str,
        typer.Option(help="The store: a folder, or an address such as s3://…; with --bases-only a file."),
    ],
    encoder: o.Encoder = None,
    dataset: o.Dataset = None,
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
    stream: Annotated[
        bool | None,
        typer.Option("--stream", help="Fetch images of the hub while they are read, and keep none."),
    ] = None,
    part: Annotated[
        str, typer.Option(help="Write one of several parts, such as 2/8: writers can be at work at once.")
    ] = "1/1",
    check: Annotated[
        str,
        typer.Option(help="Of the images that a store holds already, look at some (64) again, or at all."),
    ] = "some",
    shard_mb: Annotated[
        int,
        typer.Option(min=1, max=1024, help="MB of a shard of a new store: larger ones make fewer files."),
    ] = 64,
    bases_only: Annotated[
        bool, typer.Option("--bases-only", help="Store nothing: fit the principal components on the way.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images at a time. [default: 64]")] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read images. [default: the cores, on a GPU; else a thread]"),
    ] = None,
    decode: o.Decode = None,
    device: o.Device = None,
    on: o.On = None,
    on_error: Annotated[
        str | None,
        typer.Option(help="An image that can't be read: raise, or skip and list. [default: raise]"),
    ] = None,
    image_column: o.ImageColumn = None,
    label_column: o.LabelColumn = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Refuse a split that isn't the one that this manifest is of.")
    ] = None,
    json: o.Json = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace the files of an earlier run: --json, and bases. A store is gone on with.",
        ),
    ] = False,
    cfg: o.Cfg = None,
    param: Annotated[list[str] | None, o.param("encode.batch_size=256")] = None,
) -> None:
    """Run an encoder over a split once and keep every image's coordinates; or only their bases.

    Stopped by anything and called again, it goes on where it was, here or elsewhere.

    Examples:

        residual encode --dataset letters --split train --out letters-train

    On all GPUs of this machine; or on a Ray cluster, into a folder that all of its nodes see, or a bucket:

        residual encode --dataset imagenet --out imagenet --on gpus

        residual encode --dataset imagenet --out /shared/imagenet --on ray

        residual encode --dataset imagenet --out s3://bucket/imagenet --on ray://head:10001

    The third of eight writers of one store:

        residual encode --encoder openclip_l --dataset imagenet --out imagenet --part 3/8

    Nothing but the principal components of all patches:

        residual encode --dataset letters --out b.safetensors --bases-only --pooling patches
    """
    from residual.cli.console import check_outputs, json_of, show_skipped, stages, write_result
    from residual.cli.console import out as stdout
    from residual.cli.settings import read_encode_settings
    from residual.progress import named
    from residual.workflows.encode import encode_split
    from residual.workflows.kept import of_moments, of_store

    chosen = read_encode_settings(
        cfg or [], param or [], bases_only, encoder=encoder, dataset=dataset, split=split, pooling=pooling,
        kinds=kinds, dtype=dtype, batch_size=batch_size, workers=workers, on_error=on_error, limit=limit,
        decode=decode,
        stream=stream,
    )  # fmt: skip
    check_outputs(overwrite, json_of(json, "encode"))
    columns = {"image_column": image_column, "label_column": label_column, "manifest": manifest}
    kept = partial(of_moments if bases_only else of_store, out)
    with stages(kept) as show:
        stage = f"{chosen.dataset}: encode {chosen.split}"
        result = encode_split(
            out, part=part, check=check, shard_mb=shard_mb, bases_only=bases_only, overwrite=overwrite,
            device=device, on=on, columns=columns,
            progress=named(show, stage), **vars(chosen),
        )  # fmt: skip
    stdout.print(result["sentence"])
    show_skipped(result["skipped"])
    write_result(json, result)
