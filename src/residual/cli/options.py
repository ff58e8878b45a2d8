"""Options that several commands take, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Store = Annotated[str, typer.Argument(help="A store: a folder or an address.")]
Dataset = Annotated[
    str | None, typer.Option(help="A name as `residual datasets` lists them. [default: mnist]")
]
Encoder = Annotated[
    str | None, typer.Option(help="A name as `residual encoders` lists them. [default: picto]")
]
StoreDataset = Annotated[
    str | None,
    typer.Option("--dataset", help="Dataset of the store. [default: what the store names, if it ships]"),
]
StoreEncoder = Annotated[
    str | None,
    typer.Option(
        "--encoder", help="Encoder of the store. [default: what the store names, if the library lists it]"
    ),
]
Bases = Annotated[
    str | None,
    typer.Option(
        help="Where the principal components come from: mixed (unlabelled train pictures of the whole "
        "suite), a dataset, or a file of bases (.safetensors). [default: mixed]"
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        help="How adapters are fitted: gentle (from the encoder itself, and held near it) or paper. "
        "[default: gentle]"
    ),
]
HoldOut = Annotated[
    list[str] | None,
    typer.Option(
        help="A group of the dataset, or a pattern of sample ids, as `*/sketch/*`, whose pictures of train "
        "and val are the val part, to choose by; can be given again."
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="At most so many pictures of train, val and test each, chosen at random, of every class. "
        "[default: all]",
    ),
]
Seed = Annotated[int | None, typer.Option(help="Of the first weights and the order of samples. [default: 0]")]
Decode = Annotated[
    str | None,
    typer.Option(help="JPEGs on the cpu (Pillow), the gpu (nvJPEG, faster), or auto. [default: auto]"),
]
OnError = Annotated[
    str | None, typer.Option(help="A picture that can't be read: raise, or skip and list. [default: raise]")
]
ImageColumn = Annotated[str | None, typer.Option(help="Of hf: and disk:, the column of images.")]
LabelColumn = Annotated[str | None, typer.Option(help="Of hf: and disk:, the column of labels.")]
Stores = Annotated[
    str | None,
    typer.Option(
        help="Keep coordinates in this folder or at this address, and read those that are there, so that "
        "what is stopped goes on. [default: memory]"
    ),
]
Figures = Annotated[Path | None, typer.Option(help="Draw into this folder, PNG and SVG.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, … [default: a GPU if there is one]")]
On = Annotated[
    str | None,
    typer.Option(
        help="Run in several processes: gpus (all of this machine, or gpus:2), processes:4 (on its CPU), ray "
        "(the Ray cluster of RAY_ADDRESS, or the last started here, or else a new one), ray://HOST:10001 "
        "or ray:HOST:6379. What a worker of Ray has stands behind commas: ray,cpus=8,gpus=1,memory=32 "
        "(GB),accelerator=H100; workers=16 cuts the work for a cluster that grows by need. [default: "
        "here; of Ray, 1 GPU and its share of a node's CPUs, else 1 CPU]",
    ),
]
Json = Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace what an earlier run of this command wrote to the same place."),
]
Cfg = Annotated[list[Path] | None, typer.Option(help="A gin file of literals only; can be given again.")]


def param(examples: str) -> Any:
    """`--param name=value`, with examples of settings that the command has."""
    return typer.Option(
        help=f"A setting, such as {examples}; can be given again. `residual settings` lists them all."
    )
