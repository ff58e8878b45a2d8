"""`residual experiment`: the paper's experiments, on what ships or on the paper's own models and data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Examples:

    residual experiment 1                              # Picto on the offline suite

    residual experiment 2 --out results --json 2.json

    residual experiment 1 --cfg experiments/1_dimension/paper.gin

    residual experiment class-token --param "experiment.datasets=['letters']"

1: how many dimensions heads and MLPs have, by layer.

2: which heads keep their principal components on other data.

3: which heads a task needs, what is left without the others, and what texts say of them.

4: what each method makes of the encoder: the table of accuracies, restartable cell by cell.

class-token: whether heads write the same directions into the class token and into patches.
"""


def experiment(
    number: Annotated[str, typer.Argument(help="1, 2, 3, 4 or class-token.")],
    out: Annotated[
        Path, typer.Option(help="Results, figures and stores go here; what is there isn't made again.")
    ] = Path("results"),
    device: Annotated[str | None, typer.Option(help="cpu, cuda, … [default: a GPU if there is one]")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")] = None,
    cfg: Annotated[
        list[Path] | None, typer.Option(help="A gin file of settings; can be given again.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option(help="A setting, such as experiment.limit=500; can be given again.")
    ] = None,
) -> None:
    """Run one of the paper's experiments: cells that aren't there yet, then tables and figures of all.

    Stopped by anything and called again, it goes on with the next cell.
    """
    from residual.cli.console import out as stdout
    from residual.cli.console import stages
    from residual.cli.settings import read_experiment_settings
    from residual.errors import unknown_name
    from residual.experiments import EXPERIMENTS, run_experiment
    from residual.files import check_writable, write_json

    if number not in EXPERIMENTS:
        raise unknown_name("experiment", number, EXPERIMENTS)
    plan, settings = read_experiment_settings(
        EXPERIMENTS[number].settings_of, cfg or [], param or [], out=out, device=device
    )
    check_writable(out / EXPERIMENTS[number].folder / "table.md")
    if json:
        check_writable(json)
    with stages() as show:
        result = run_experiment(EXPERIMENTS[number](settings), plan, show)
    stdout.print((out / EXPERIMENTS[number].folder / "table.md").read_text(encoding="utf-8"))
    measured = sum(cell["measured"] for cell in result["cells"])
    stdout.print(
        f"{len(result['cells'])} cells, {measured} of them measured now; {len(result['figures'])} figures in "
        f"{out / EXPERIMENTS[number].folder / 'figures'}."
    )
    if json:
        write_json(json, result)


experiment.__doc__ = f"{experiment.__doc__}\n{EXAMPLE}"
