"""`residual train`: one adapter, kept in a folder that can be loaded, evaluated and shared."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from residual.cli import options as o


def train(
    out: Annotated[Path, typer.Option(help="The adapter is written into this folder.")],
    dataset: o.Dataset = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="linear, spectral, coarse, residual_star, residual or fine_tuning, or one as published, as "
            "residual_released. [default: residual]"
        ),
    ] = None,
    encoder: o.Encoder = None,
    bases: o.Bases = None,
    recipe: o.Recipe = None,
    hold_out: o.HoldOut = None,
    limit: o.Limit = None,
    seed: o.Seed = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Fit this many times; the best on val is kept. [default: 5; fine-tuning: 1]"
        ),
    ] = None,
    logger: Annotated[
        str | None,
        typer.Option(
            help="Of fine-tuning, into OUT/training: csv, tensorboard, wandb or none. [default: csv]"
        ),
    ] = None,
    stores: o.Stores = None,
    figures: Annotated[Path | None, typer.Option(help="Draw the weights into this folder.")] = None,
    json: o.Json = None,
    overwrite: o.Overwrite = False,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Pictures encoded at a time. [default: 64]")
    ] = None,
    decode: o.Decode = None,
    on: o.On = None,
    device: o.Device = None,
    on_error: o.OnError = None,
    cfg: o.Cfg = None,
    param: Annotated[
        list[str] | None,
        o.param("FitSettings.optimizer=lbfgs, AdapterSettings.rank=0.95 or TrainSettings.epochs=3"),
    ] = None,
) -> None:
    """Train on the train part, choose epoch and seed on val, test, and keep the adapter with a model card.

    Fine-tuning goes on where it was if it was stopped and is called again.

    Examples:

        residual train --dataset letters --out letters-adapter

        residual train --dataset letters --method residual_star --seeds 5 --out star --figures figures

        residual train --dataset letters --method fine_tuning --out tuned --logger tensorboard

        residual train --dataset folder:pictures --hold-out '*/sketch/*' --out mine

    On all GPUs of this machine, a seed each:

        residual train --method fine_tuning --seeds 8 --on gpus --stores stores --out tuned
    """
    from residual.adapters.methods import ADAPTERS, FINE_TUNING
    from residual.adapters.recipes import Fitting
    from residual.adapters.sharing import FILES
    from residual.cli.console import (
        check_outputs,
        json_of,
        recipes_line,
        show_skipped,
        stages,
        steps,
        write_result,
    )
    from residual.cli.console import out as stdout
    from residual.cli.settings import read_train_settings
    from residual.encoders import load_encoder
    from residual.errors import NoPlaceError, ResidualError
    from residual.executors import opened
    from residual.files import local_path
    from residual.outputs import Output, check_stores
    from residual.products import ADAPTER, FIGURES
    from residual.report import (
        check_matplotlib,
        components_table,
        intervals_note,
        lambdas_figure,
        parts_note,
        run_table,
        save_figure,
        sentence,
    )
    from residual.report.figures import figure_files
    from residual.store.site import site_of
    from residual.workflows.encode import check_on
    from residual.workflows.train import logger_of, train_on

    if figures:
        check_matplotlib()
    options, how = read_train_settings(
        cfg or [], param or [], dataset=dataset, method=method, encoder=encoder, bases=bases, recipe=recipe,
        hold_out=hold_out, limit=limit, seed=seed, seeds=seeds, batch_size=batch_size, decode=decode,
        on_error=on_error,
    )  # fmt: skip
    drawn = [name for name, adapter in ADAPTERS.items() if adapter.of_units]
    logger = logger_of(options.method, logger)
    if figures and options.method not in drawn:
        raise ResidualError(
            f"--figures draws the weights of units, and {options.method} has none: leave it out, or take "
            f"{', '.join(drawn[:-1])} or {drawn[-1]}."
        )
    check_outputs(
        overwrite,
        Output("--out", out, ADAPTER, FILES, going_on=options.method == FINE_TUNING),
        json_of(json, "train"),
        Output("--figures", figures, FIGURES, figure_files(["lambdas"])),
    )
    out = local_path(out)
    kept_in = None if stores is None else check_stores(stores)
    kept = partial(_kept, kept_in, out / "training")
    if on and kept_in is None:
        raise NoPlaceError()
    check_on(on, device)
    with stages(kept, keeper="" if kept_in else "--stores DIR") as show, opened(on) as executor:
        dtype = None if executor is None else site_of(executor).dtype
        model = load_encoder(options.encoder, device=device, dtype=dtype)
        done = train_on(
            model, options.dataset, options.method, how, held_out=options.hold_out,
            limit=options.limit, bases=options.bases,
            per_dataset=options.per_dataset, batch_size=options.batch_size, on_error=options.on_error,
            decode=options.decode, stores=kept_in, folder=out / "training", logger=logger, progress=show,
            overwrite=overwrite, executor=executor,
        )  # fmt: skip
    adapter, units, classifier = done.adapter, done.task.stores["train"].units, done.task.classifier
    with steps() as step:
        with step():
            stdout.print(run_table(done.summary))
            stdout.print(intervals_note(done.summary))
            if note := parts_note(done.summary):
                stdout.print(note)
            stdout.print(sentence(done.summary))
            if isinstance(how, Fitting):
                stdout.print(recipes_line({options.method: how}))
            if adapter is not None and adapter.of_components:
                stdout.print(components_table(adapter, units, classifier))
            show_skipped(done.summary["skipped"])
        with step():
            write_result(json, done.summary)
        with step():
            done.adapted.save_pretrained(out, overwrite)
            stdout.print(f"Kept in {out}; seed {done.summary['kept_seed']} was the best on val.")
        if figures and adapter is not None:
            title = f"{done.summary['encoder']} on {done.summary['dataset']}: what the weights do"
            figure = lambdas_figure(adapter, units, classifier, title)
            for path in save_figure(figure, figures, "lambdas", overwrite):
                stdout.print(f"{path}")


def _kept(stores: str | Path | None, trainings: Path) -> str:
    """What there is to go on from."""
    from residual.workflows.kept import joined, of_stores, of_trainings

    return joined(of_stores(stores) if stores else "", of_trainings(trainings))
