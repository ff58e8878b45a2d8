"""`residual run`: the main job, from pictures to a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from residual.cli import options as o

if TYPE_CHECKING:
    from residual.adapters.recipes import Fitting


def run(
    dataset: o.Dataset = None,
    every: Annotated[bool, typer.Option("--all", help="All ten datasets of the offline suite.")] = False,
    encoder: o.Encoder = None,
    bases: o.Bases = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="linear, spectral, coarse, residual_star or residual, or one as published, as "
            "residual_released; can be given again. "
            "[default: residual_star, residual]"
        ),
    ] = None,
    recipe: o.Recipe = None,
    hold_out: o.HoldOut = None,
    limit: o.Limit = None,
    seed: o.Seed = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Fit this many times, from --seed on. [default: 5]")
    ] = None,
    stores: o.Stores = None,
    json: o.Json = None,
    report: Annotated[Path | None, typer.Option(help="Write a page of pictures into this folder.")] = None,
    overwrite: o.Overwrite = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures at a time. [default: 64]")] = None,
    decode: o.Decode = None,
    device: o.Device = None,
    on_error: o.OnError = None,
    cfg: o.Cfg = None,
    param: Annotated[list[str] | None, o.param("FitSettings.learning_rate=0.4")] = None,
) -> None:
    """Split a frozen encoder into its heads, train weights on their principal components, test.

    Prints accuracy before and after, how many weights were trained, and how long it took.

    Examples:

        residual run                                    # MNIST digits

        residual run --dataset letters --report out     # and a page to look at

        residual run --dataset folder:pictures          # your own pictures

        residual run --method linear --method coarse    # other methods

        residual run --all --seeds 3 --json all.json    # the whole suite
    """
    from residual.cli.console import (
        check_outputs,
        json_of,
        out,
        stages,
        steps,
        write_result,
    )
    from residual.cli.settings import read_run_settings
    from residual.data import dataset_names
    from residual.encoders import load_encoder
    from residual.outputs import Output, check_stores
    from residual.products import PAGES
    from residual.report import write_suite_page
    from residual.workflows.kept import joined, of_datasets, of_stores
    from residual.workflows.run import RUN_METHODS, run_tasks
    from residual.workflows.run_page import RunPages

    options, fittings = read_run_settings(
        cfg or [], param or [], tuple(dict.fromkeys(method or RUN_METHODS)), every, dataset=dataset,
        encoder=encoder, bases=bases, recipe=recipe, hold_out=hold_out, limit=limit, seed=seed, seeds=seeds,
        batch_size=batch_size, decode=decode, on_error=on_error,
    )  # fmt: skip
    datasets = dataset_names() if every else [options.dataset]
    files = (*(f"{name}.html" for name in datasets), "index.html", "table.md") if every else ("index.html",)
    check_outputs(overwrite, json_of(json, "run"), Output("--report", report, PAGES, files))
    kept_in = None if stores is None else check_stores(stores)
    summaries: list[dict[str, Any]] = []
    drawn: list[Path] = []

    def kept() -> str:
        return joined(of_datasets(summaries, [json, report]), of_stores(kept_in) if kept_in else "")

    with steps() as step:
        try:
            with stages(kept, kept_in is not None, "" if kept_in else "--stores DIR") as show:
                model = load_encoder(options.encoder, device=device)
                pages = RunPages(model, show)
                for done in run_tasks(
                    model, datasets, fittings, held_out=options.hold_out, limit=options.limit,
                    bases=options.bases, per_dataset=options.per_dataset, batch_size=options.batch_size,
                    on_error=options.on_error, decode=options.decode, stores=kept_in, progress=show,
                ):  # fmt: skip
                    summaries.append(done.summary)
                    # After each dataset, so that what is done is kept if a later one stops the run.
                    with step():
                        write_result(json, summaries if every else summaries[0])
                    if report:
                        with step():
                            page = report / (f"{done.task.name}.html" if every else "index.html")
                            drawn.append(pages.write(page, done, overwrite))
        finally:
            if summaries:
                _show(summaries, fittings, every)
        if report and drawn:
            if every:
                write_suite_page(report, summaries, overwrite)
            out.print(f"The page to look at: {report / 'index.html'}")


def _show(summaries: Sequence[dict[str, Any]], fittings: Mapping[str, Fitting], every: bool) -> None:
    """The table of what is done, and what there is to say of it."""
    from residual.cli.console import out, recipes_line, show_skipped
    from residual.report import intervals_note, parts_note, run_table, sentence, suite_table

    out.print(suite_table(summaries) if every else run_table(summaries[0]))
    out.print(intervals_note(summaries[0], pictures=not every))
    out.print(recipes_line(fittings))
    for note in dict.fromkeys(filter(None, map(parts_note, summaries))):
        out.print(note)
    for summary in summaries:
        out.print(sentence(summary))
        show_skipped(summary["skipped"])
