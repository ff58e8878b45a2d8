"""`residual describe`: heads of a store in words and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residual.cli import options as o


def describe(
    store: o.Store,
    dictionary: Annotated[
        str,
        typer.Option(
            help="Texts to tell heads by: a list that ships (attributes, emoji, words), or a file, a text a "
            "line or a JSON list. attributes are 299 of colours, shapes, textures, counts and places."
        ),
    ] = "attributes",
    head: Annotated[
        list[str] | None, typer.Option(help="Layer and head, such as 11.4; can be given again.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="So many of the best by the task. [default: 10]")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="What ranks heads: accuracy (alone), span or correlation. [default: accuracy]"),
    ] = None,
    encoder: o.StoreEncoder = None,
    dataset: o.StoreDataset = None,
    atoms: Annotated[int | None, typer.Option(min=1, help="Texts for a head. [default: 10]")] = None,
    components: Annotated[
        int | None, typer.Option(min=1, help="First components of a head. [default: 3]")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Samples at each end of a component. [default: 8]")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Write a page of texts and pictures: FILE.html.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write everything here, as JSON.")] = None,
    overwrite: o.Overwrite = False,
    device: o.Device = None,
    cfg: o.Cfg = None,
    param: Annotated[list[str] | None, o.param("DescribeSettings.criterion=l1")] = None,
) -> None:
    """Tell what heads write: by texts, by the pictures at the ends of their components, by their spectrum.

    The table has a row a head: its score on the task and its rank by that, its linear dimension, its
    participation ratio (PR), its first explained variance ratio (EVR), and its first texts.

    Examples:

        residual describe letters-test                              # by the list "attributes"

        residual describe letters-test --page heads.html

        residual describe letters-test --dictionary words --head 7.2 --head 6.0 --atoms 5

        residual describe letters-test --dictionary my_texts.txt --top 3 --task span --json heads.json

        residual describe my-store --dictionary emoji --dataset folder:pictures --page mine.html
    """
    from residual.cli.console import check_outputs, json_of, out, show_origin, stages, steps, write_result
    from residual.cli.settings import read_describe_settings
    from residual.outputs import Output
    from residual.products import HEADS_PAGE
    from residual.report import heads_table, write_heads_page
    from residual.workflows.describe import describe_store

    settings = read_describe_settings(
        cfg or [],
        param or [],
        bool(head),
        top=top,
        task=task,
        atoms=atoms,
        components=components,
        images=images,
    )
    check_outputs(overwrite, json_of(json, "describe"), Output("--page", page, HEADS_PAGE))
    with stages() as show:
        description = describe_store(
            store, dictionary, head or None, settings, encoder=encoder, dataset=dataset, device=device,
            progress=show,
        )  # fmt: skip
    told = description.heads
    with steps() as step:
        with step():
            out.print(heads_table(told))
            out.print(f"By the {told.entries:,} texts of {told.dictionary}. {told.chosen_note}".rstrip())
            if told.unsuited:
                out.print(told.unsuited)
            show_origin(description.origin)
        with step():
            write_result(json, description.result)
        if page:
            with stages() as show:
                write_heads_page(
                    page, told, description.origin.images, show, overwrite, encoder=description.encoder,
                    bases=description.bases,
                )  # fmt: skip
            out.print(f"The page to look at: {page}")
