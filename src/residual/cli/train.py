"""`residual train`: one adapter, kept in a folder that can be loaded, evaluated and shared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLE = """
Examples:

    residual train --dataset letters --out letters-adapter

    residual train --dataset letters --method residual_star --seeds 5 --out star --figures figures

    residual train --dataset letters --method fine_tuning --out tuned --logger tensorboard

    residual train --dataset folder:pictures --param AdapterSettings.init=ones --out mine
"""


def train(
    out: Annotated[Path, typer.Option(help="The adapter is written into this folder.")],
    dataset: Annotated[
        str | None, typer.Option(help="A name as `residual datasets` lists them. [default: mnist]")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="linear, spectral, coarse, residual_star, residual or fine_tuning. [default: residual]"
        ),
    ] = None,
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
    seed: Annotated[
        int | None, typer.Option(help="Of the first weights and the order of samples. [default: 0]")
    ] = None,
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
    stores: Annotated[
        Path | None,
        typer.Option(
            help="Keep coordinates in this folder, and read those that are there. [default: memory]"
        ),
    ] = None,
    figures: Annotated[Path | None, typer.Option(help="Draw the weights into this folder.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Pictures encoded at a time. [default: 64]")
    ] = None,
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
        typer.Option(
            help="A setting, such as FitSettings.optimizer=lbfgs, AdapterSettings.rank=0.95 or "
            "TrainSettings.precision=bf16-mixed; can be given again."
        ),
    ] = None,
) -> None:
    """Train on the train part, choose epoch and seed on val, test, and keep the adapter with a model card.

    Fine-tuning goes on where it was if it was stopped and is called again.
    """
    from residual.adapters.methods import ADAPTERS, FINE_TUNING
    from residual.cli.console import err, stages
    from residual.cli.console import out as stdout
    from residual.cli.settings import read_train_settings
    from residual.encoders.load import load_encoder
    from residual.errors import ResidualError
    from residual.files import check_writable, write_json
    from residual.report.figures import check_matplotlib, save_figure
    from residual.report.lambdas import components_table, lambdas_figure
    from residual.report.tables import run_table
    from residual.workflows.task import encode_task, reference_from
    from residual.workflows.train import logger_of, train_adapter, train_encoder

    if figures:
        check_matplotlib()
    options, fits, trainings, settings = read_train_settings(
        cfg or [], param or [], dataset=dataset, method=method, encoder=encoder, bases=bases, seed=seed,
        seeds=seeds, batch_size=batch_size, on_error=on_error,
    )  # fmt: skip
    logger = logger_of(options["method"], logger)
    drawn = [name for name, adapter in ADAPTERS.items() if adapter.of_units]
    if figures and options["method"] not in drawn:
        raise ResidualError(
            f"--figures draws the weights of units, and {options['method']} has none: leave it out, or take "
            f"{', '.join(drawn[:-1])} or {drawn[-1]}."
        )
    for path in filter(None, (out / "README.md", json, figures and figures / "lambdas.png")):
        check_writable(path)
    reading: dict[str, Any] = {name: options[name] for name in ("batch_size", "on_error")}
    reading["stores"] = stores
    model = load_encoder(options["encoder"], device=device)
    with stages() as show:
        task = encode_task(model, options["dataset"], progress=show, **reading)
        if options["method"] == FINE_TUNING:
            done = train_encoder(model, task, trainings, out / "training", logger, show)
        else:
            source, count = options["bases"], options["per_dataset"]
            reference = reference_from(model, source, count, progress=show, **reading)
            done = train_adapter(model, task, reference, options["method"], fits, settings, show)
    done.adapted.save_pretrained(out)
    stdout.print(run_table(done.summary))
    if done.adapter is not None and done.adapter.of_units:
        units = task.stores["train"].units
        stdout.print(components_table(done.adapter, units, task.classifier))
        if figures:
            title = f"{model.name} on {task.name}: what the weights do"
            figure = lambdas_figure(done.adapter, units, task.classifier, title)
            for path in save_figure(figure, figures, "lambdas"):
                stdout.print(f"{path}")
    for sample in done.summary["skipped"]:
        err.print(f"left out, can't be read: {sample}")
    stdout.print(f"Kept in {out}; seed {done.summary['kept_seed']} was the best on val.")
    if json:
        write_json(json, done.summary)


train.__doc__ = f"{train.__doc__}\n{EXAMPLE}"
