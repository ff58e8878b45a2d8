"""`residual run`: the main job, from pictures to a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLE = """
Examples:

    residual run                                    # MNIST digits

    residual run --dataset letters --report out     # and a page to look at

    residual run --dataset folder:pictures          # your own pictures

    residual run --method linear --method coarse    # other methods

    residual run --all --seeds 3 --json all.json    # the whole suite
"""


def run(
    dataset: Annotated[
        str | None, typer.Option(help="A name as `residual datasets` lists them. [default: mnist]")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All ten datasets of the offline suite.")] = False,
    encoder: Annotated[
        str | None, typer.Option(help="A name as `residual encoders` lists them. [default: picto]")
    ] = None,
    bases: Annotated[
        str | None,
        typer.Option(
            help="Where the principal components come from: mixed (unlabelled train pictures of the whole "
            "suite), a dataset, or a file of bases (.safetensors). [default: mixed]"
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="linear, spectral, coarse, residual_star or residual; can be given again. "
            "[default: residual_star, residual]"
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the first weights and the order of samples. [default: 0]")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Fit this many times, from --seed on. [default: 5]")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page of pictures into this folder.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures at a time. [default: 64]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, … [default: a GPU if there is one]")] = None,
    on_error: Annotated[
        str | None,
        typer.Option(help="A picture that can't be read: raise, or skip and list. [default: raise]"),
    ] = None,
    cfg: Annotated[
        list[Path] | None, typer.Option(help="A gin file of settings; can be given again.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(help="A setting, such as FitSettings.learning_rate=0.4; can be given again."),
    ] = None,
) -> None:
    """Split a frozen encoder into its heads, train weights on their principal components, test.

    Prints accuracy before and after, how many weights were trained, and how long it took.
    """
    from residual.cli.console import err, out, stages
    from residual.cli.settings import read_settings
    from residual.data import dataset_names
    from residual.encoders.load import load_encoder
    from residual.errors import ResidualError
    from residual.files import check_writable, write_json
    from residual.report.run_page import write_run_page, write_suite_page
    from residual.report.tables import run_table, sentence, suite_table
    from residual.workflows.run import RUN_METHODS, run_tasks

    if every and dataset:
        raise ResidualError(
            "--all takes every dataset of the suite: leave out --dataset, or leave out --all."
        )
    options, fits, settings = read_settings(
        cfg or [], param or [], dataset=dataset, encoder=encoder, bases=bases, seed=seed, seeds=seeds,
        batch_size=batch_size, on_error=on_error,
    )  # fmt: skip
    for path in filter(None, (json, report and report / "index.html")):
        check_writable(path)
    names = dataset_names() if every else [options["dataset"]]
    kept = ("bases", "per_dataset", "batch_size", "on_error")
    reading: dict[str, Any] = {name: options[name] for name in kept}
    reading["methods"] = tuple(dict.fromkeys(method or RUN_METHODS))
    model = load_encoder(options["encoder"], device=device)
    summaries = []
    with stages() as show:
        for done in run_tasks(model, names, fits, settings, progress=show, **reading):
            summaries.append(done.summary)
            if json:  # after each dataset, so that what is done is kept if a later one stops the run
                write_json(json, summaries if every else summaries[0])
            if report:
                write_run_page(report / ("index.html" if not every else f"{done.task.name}.html"), done)
    out.print(suite_table(summaries) if every else run_table(summaries[0]))
    for summary in summaries:
        out.print(sentence(summary))
        for sample in summary["skipped"]:
            err.print(f"left out, can't be read: {sample}")
    if report:
        if every:
            write_suite_page(report, summaries)
        out.print(f"The page to look at: {report / 'index.html'}")


run.__doc__ = f"{run.__doc__}\n{EXAMPLE}"
