"""`residual heads`: which heads a task needs, by every way to choose them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residual.cli import options as o


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
    encoder: o.StoreEncoder = None,
    dataset: o.StoreDataset = None,
    figures: o.Figures = None,
    device: o.Device = None,
    json: Annotated[
        Path | None, typer.Option(help="Write scores, selections and accuracies here, as JSON.")
    ] = None,
    overwrite: o.Overwrite = False,
    cfg: o.Cfg = None,
    param: Annotated[list[str] | None, o.param("ScoreboardSettings.seeds=20")] = None,
) -> None:
    """Keep only the best heads by every score, and see what accuracy is left, beside random heads.

    S: accuracy of the head alone. U: its correlation with the output, U|T: in the span of the classes. P:
    variance that texts explain. O: trained weights, Oσ: times the
    deviation of the head's contribution. R: random. In per cent; ±: half the 95 % t interval over
    seeds, each of which halves the samples and draws heads anew.

    Examples:

        residual heads letters-val --test letters-test --figures figures

        residual heads letters-val --test letters-test --train letters-train --dictionary words

        residual heads letters-val --param ScoreboardSettings.mode=mean --param ScoreboardSettings.seeds=20
    """
    from residual.cli.console import check_outputs, json_of, out, show_origin, stages, steps, write_result
    from residual.cli.settings import read_heads_settings
    from residual.outputs import Output
    from residual.products import FIGURES
    from residual.report import (
        check_matplotlib,
        halves_note,
        save_figures,
        scoreboard_figures,
        scoreboard_table,
    )
    from residual.report.figures import figure_files
    from residual.report.scoreboards import SCOREBOARD_FIGURES
    from residual.workflows.heads import scoreboard_of_stores

    if figures:
        check_matplotlib()
    settings = read_heads_settings(cfg or [], param or [], dictionary is not None)
    names = figure_files(SCOREBOARD_FIGURES)
    check_outputs(overwrite, json_of(json, "heads"), Output("--figures", figures, FIGURES, names))
    with stages() as show:
        compared = scoreboard_of_stores(
            store, test, train, dictionary, settings, encoder=encoder, dataset=dataset, device=device,
            progress=show,
        )  # fmt: skip
    rows = compared.board.rows
    with steps() as step:
        with step():
            out.print(scoreboard_table(rows, compared.title))
            if "worst_group" in rows:
                out.print(scoreboard_table(rows, "worst group", "worst_group"))
            out.print(halves_note(settings.seeds))
            show_origin(compared.origin)
        with step():
            write_result(json, compared.result)
        if figures:
            drawn = scoreboard_figures(rows, compared.board.scores, compared.title, compared.chance)
            for path in save_figures(drawn, figures, overwrite):
                out.print(f"{path}")
