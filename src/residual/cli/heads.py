"""`residual heads`: which heads a task needs, by every way to choose them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """
Examples:

    residual heads letters-val --test letters-test --figures figures

    residual heads letters-val --test letters-test --train letters-train --dictionary words

    residual heads letters-val --param ScoreboardSettings.mode=mean --param ScoreboardSettings.seeds=20
"""


def heads(
    store: Annotated[str, typer.Argument(help="The store that heads are chosen by: a folder or an address.")],
    test: Annotated[
        str | None,
        typer.Option(help="The store that they are tested on. [default: the other half of the first]"),
    ] = None,
    train: Annotated[
        str | None, typer.Option(help="A store to train weights of heads on, (O): best a train split.")
    ] = None,
    dictionary: Annotated[
        str | None,
        typer.Option(help="Texts for (P): a list that ships (attributes, emoji, words), or a file."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Encoder of the stores. [default: by the name they note]")
    ] = None,
    figures: Annotated[Path | None, typer.Option(help="Draw into this folder, PNG and SVG.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, … [default: a GPU if there is one]")] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write scores, selections and accuracies here, as JSON.")
    ] = None,
    cfg: Annotated[
        list[Path] | None, typer.Option(help="A gin file of settings; can be given again.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(help="A setting, such as ScoreboardSettings.seeds=20; can be given again."),
    ] = None,
) -> None:
    """Keep only the best heads by every score, and see what accuracy is left, beside random heads.

    S: accuracy of the head alone. U: its correlation with the output, U|T: in the span of the classes. P:
    variance that texts explain. O: trained weights, Oσ: times the
    deviation of the head's contribution. R: random. In per cent, ± half the 95 % interval over
    samples and draws.
    """
    from residual.cli.console import out, stages
    from residual.cli.settings import read_scoreboard_settings
    from residual.files import check_writable, write_json
    from residual.report.figures import check_matplotlib
    from residual.report.scoreboard_figures import scoreboard_table
    from residual.workflows.heads import board_of_stores

    if figures:
        check_matplotlib()
    settings = read_scoreboard_settings(cfg or [], param or [])
    for path in filter(None, (json, figures and figures / "scoreboard.png")):
        check_writable(path)
    with stages() as show:
        found = board_of_stores(
            store, test, train, dictionary, settings, encoder=encoder, device=device, progress=show
        )
    rows = found.board.rows
    out.print(scoreboard_table(rows, found.title))
    if "worst_group" in rows:
        out.print(scoreboard_table(rows, "worst group", "worst_group"))
    for path in found.draw(figures) if figures else ():
        out.print(f"{path}")
    if json:
        write_json(json, found.result)


heads.__doc__ = f"{heads.__doc__}\n{EXAMPLE}"
