"""`residual experiment`: the paper's experiments, on what ships or on the paper's own models and data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residual.cli import options as o


def experiment(
    number: Annotated[
        str,
        typer.Argument(
            help="1, 2, 3, 4 or class-token; or by name: dimension, similarity, heads, adapters, class_token."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Results, figures and stores go here; what is there isn't made again.")
    ] = Path("results"),
    stores: Annotated[
        str | None,
        typer.Option(help="Keep coordinates in this folder, or at this address. [default: OUT/stores]"),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only look up what is needed; exit code 1 if something can't be had."),
    ] = False,
    on: o.On = None,
    device: o.Device = None,
    json: o.Json = None,
    overwrite: o.Overwrite = False,
    cfg: o.Cfg = None,
    param: Annotated[list[str] | None, o.param("experiment.limit=500")] = None,
) -> None:
    """Run one of the paper's experiments: cells that aren't there yet, then tables and figures of all.

    Stopped by anything and called again, it goes on with the next cell. A cell that fails leaves the others
    alone, is listed at the end (exit code 1) and tried again by the same command.

    Examples:

        residual experiment 1                              # Picto on the offline suite

        residual experiment 2 --out results --json 2.json

    On a Ray cluster, cell by cell; stores lie where all of its nodes reach:

        residual experiment 4 --on ray --stores s3://bucket/stores

        residual experiment 1 --cfg experiments/1_dimension/paper.gin --dry-run

        residual experiment class-token --param "experiment.datasets=['letters']"

    1: how many dimensions heads and MLPs have, by layer.

    2: which heads keep their principal components on other data.

    3: which heads a task needs, what is left without the others, and what texts say of them.

    4: what each method makes of the encoder: the table of accuracies, restartable cell by cell.

    class-token: whether heads write the same directions into the class token and into patches.
    """
    from residual.cli import again, explained
    from residual.cli.console import check_outputs, err, json_of, show_skipped, stages, write_result
    from residual.cli.console import out as stdout
    from residual.cli.settings import read_experiment_settings
    from residual.experiments import experiment_of, look_up, run_experiment
    from residual.files import local_path
    from residual.outputs import Output, check_stores
    from residual.products import EXPERIMENT
    from residual.report.geometry import tables_of_markdown
    from residual.report.preflight import by_reason, in_bytes, preflight_tables
    from residual.workflows.kept import joined, of_cells, of_stores

    out = local_path(out)
    kept_in = None if stores is None else check_stores(stores)
    number, kind = experiment_of(number)
    plan, settings = read_experiment_settings(
        number, cfg or [], param or [], out=out, device=device, stores=kept_in
    )
    folder = out / kind.folder
    results = Output("--out", None if dry_run else folder, EXPERIMENT)
    check_outputs(overwrite, results, json_of(json, "experiment"))
    needs = look_up(kind(settings), plan)
    if dry_run:
        for table in preflight_tables(needs.encoders, needs.datasets):
            stdout.print(table)
            stdout.print()
        stdout.print(
            f"About {in_bytes(needs.absent)} to be fetched, {in_bytes(needs.stores)} of disk for stores and "
            f"{in_bytes(needs.memory)} of memory{', without what is missing' if needs.errors else ''}."
        )
        write_result(json, needs.facts())
    for problem in needs.problems():
        err.print(f"missing: {problem}")
    if dry_run:
        raise typer.Exit(1 if needs.problems() else 0)
    with stages(lambda: joined(of_cells(folder), of_stores(plan.place_of_stores))) as show:
        result = run_experiment(
            kind(settings), plan, show, lacking=needs.lacking, explain=lambda error: explained(error)[0],
            executor=on,
        )  # fmt: skip
    for table in tables_of_markdown((folder / "table.md").read_text(encoding="utf-8")):
        stdout.print(table)
        stdout.print()
    measured = sum(cell["measured"] for cell in result["cells"])
    stdout.print(
        f"{len(result['cells'])} cells, {measured} of them measured now; {len(result['figures'])} figures in "
        f"{folder / 'figures'}."
    )
    stdout.print(f"Tables in {folder}, for Markdown and LaTeX: {', '.join(result['tables'])}.")
    for of, samples in result["skipped"].items():
        show_skipped(f"{of}: {sample}" for sample in samples)
    write_result(json, result)
    for what, rows in (("kept as it is, not compared", result["unchecked"]), ("failed", result["failed"])):
        for reason, cells in by_reason(rows).items():
            err.print(f"{what}: {cells}: {reason}")
    if result["undrawn"]:
        err.print(f"figures failed: {result['undrawn']}")
    if result["failed"] or result["undrawn"]:
        needed = ", with --overwrite" if not overwrite and again([]) else ""
        err.print(f"The same command tries these again{needed}.")
        raise typer.Exit(1)
