"""The scoreboard of ways to choose heads: for the terminal and as figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from residual.intervals import OVER_SEEDS, over_seeds
from residual.report.figures import (
    COLOURS,
    chance_line,
    grid_figure,
    new_figure,
    plain_text,
    title_of,
    write_numbers,
)
from residual.report.layout import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "all units": "all units",
    "all heads": "all heads",
    "accuracy": "(S) accuracy alone",
    "span": "(U|T) correlation in the classes' span",
    "correlation": "(U) correlation with the output",
    "head_span": "(U|T) in the span, with heads alone",
    "head_correlation": "(U) with the sum of heads alone",
    "pursuit": "(P) variance that texts explain",
    "trained": "(O) trained weights",
    "effect": "(Oσ) trained weights times deviation",
    "random": "(R) random",
}
_SHORT = {
    "accuracy": "S alone",
    "span": "U|T in span",
    "correlation": "U output",
    "head_span": "U|T heads",
    "head_correlation": "U heads",
    "pursuit": "P texts",
    "trained": "O trained",
    "effect": "Oσ times σ",
    "random": "R random",
}
# Of Okabe and Ito's palette, with a marker each, for those who see no colours.
_LOOKS = {
    "accuracy": ("#0072B2", "o"),
    "span": ("#D55E00", "s"),
    "correlation": ("#009E73", "^"),
    "head_span": ("#D55E00", "*"),
    "head_correlation": ("#009E73", "<"),
    "pursuit": ("#CC79A7", "D"),
    "trained": ("#56B4E9", "v"),
    "effect": ("#E69F00", "P"),
    "random": ("#555555", "x"),
}
_ABOUT = {
    "of": "without one layer",
    "up to": "without all up to a layer",
    "from": "without all from a layer on",
}


def scoreboard_cells(
    rows: pd.DataFrame, measure: str = "accuracy", labels: Mapping[str, str] = LABELS
) -> tuple[list[str], list[list[str]]]:
    """Headings, and for each way its figures by share, in per cent with half their interval's width."""
    shares = sorted(rows["share"].dropna().unique())
    heads = rows.dropna(subset="share").groupby("share")["heads"].first()
    named = [(f"{share:.0%}" if share else "best", heads[share]) for share in shares]
    headings = ["kept", *(f"{name} ({count})" for name, count in named), "100%"]
    cells = []
    for way in [way for way in LABELS if way in set(rows["way"])]:
        own = rows[rows["way"] == way]
        if own["share"].isna().all():
            figures = [*[""] * len(shares), _percent(own.iloc[0], measure)]
        else:
            figures = [*(_percent(own.set_index("share").loc[share], measure) for share in shares), ""]
        cells.append([labels.get(way, way), *figures])
    return headings, cells


def halves_note(seeds: int) -> str:
    """What `±` means there, for a line under it."""
    return f"{OVER_SEEDS} over {seeds} seeds, each of which halves the samples and draws heads anew."


def scoreboard_table(rows: pd.DataFrame, title: str, measure: str = "accuracy") -> Table:
    """A row a way, a column a share of heads."""
    headings, cells = scoreboard_cells(rows, measure, _SHORT)
    table = Table(title)
    for position, heading in enumerate(headings):
        table.add_column(heading, justify="right" if position else "left")
    for row in cells:
        table.add_row(*(cell.replace(" ± ", "±") for cell in row))
    return table


SCOREBOARD_FIGURES = ("scoreboard", *(f"scores-{name}" for name in LABELS))


def scoreboard_figures(
    rows: pd.DataFrame, scores: pd.DataFrame, title: str, chance: float | None = None
) -> dict[str, Figure]:
    """All figures of a `Scoreboard`, by name: accuracies by share that is kept, and each score of heads."""
    figures = {"scoreboard": scoreboard_figure(rows, title, chance)}
    for name in [name for name in LABELS if name in scores]:
        figures[f"scores-{name}"] = grid_figure(scores.assign(value=scores[name]), LABELS[name], title)
    return figures


def scoreboard_figure(rows: pd.DataFrame, title: str, chance: float | None = None) -> Figure:
    """Accuracy by the share of heads that is kept: a line a way, its interval as a band.

    Args:
        rows: those of a `Scoreboard`.
        title: what it is of.
        chance: what guessing gets.
    """
    figure = new_figure(7.0, 4.4)
    axes = figure.subplots()
    shares = sorted(share for share in rows["share"].dropna().unique() if share)  # 0 is the single best
    for way, (colour, marker) in _LOOKS.items():
        own = rows[(rows["way"] == way) & (rows["share"] > 0)].sort_values("share")
        if len(own):
            x = 100 * own["share"]
            style = "--" if way.startswith("head_") else "-"
            axes.plot(x, own["accuracy"], style, color=colour, marker=marker, markersize=4, label=LABELS[way])
            axes.fill_between(x, own["accuracy_low"], own["accuracy_high"], color=colour, alpha=0.15, lw=0)
    for way, style in (("all units", "-"), ("all heads", ":")):
        level = float(rows.loc[rows["way"] == way, "accuracy"].iloc[0])
        axes.axhline(level, color="black", linewidth=1, linestyle=style, label=LABELS[way])
    chance_line(axes, chance)
    axes.set_xscale("log")
    axes.set_xticks([100 * share for share in shares], [f"{100 * share:g}" for share in shares])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.set_xlabel("heads kept, per cent")
    axes.set_ylabel("accuracy on test (bands: 95 % over halves of the samples)")
    axes.grid(alpha=0.25, linewidth=0.5)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    title_of(figure, title)
    return figure


def ablations_figure(rows: pd.DataFrame, title: str, chance: float | None = None) -> Figure:
    """Accuracy without the heads or MLPs of one layer, of those up to it, and from it on.

    Args:
        rows: columns `name` as `ablations` gives them, `mode`, `accuracy`; the mean of equal names is drawn.
        title: what it is of.
        chance: what guessing gets.
    """
    from matplotlib.ticker import MaxNLocator

    means = rows.groupby(["mode", "name"], sort=False)["accuracy"].mean()
    figure = new_figure(10.0, 3.6)
    panels = figure.subplots(1, 3, sharey=True).tolist()
    for axes, about in zip(panels, ("of", "up to", "from"), strict=True):
        for (kind, colour), marker in zip((("heads", "#0072B2"), ("mlps", "#D55E00")), "os", strict=True):
            for mode, style in (("zero", "-"), ("mean", "--")):
                start = f"no {kind} {about} layer "
                own = means[mode][means[mode].index.str.startswith(start)]
                layers = own.index.str.removeprefix(start).astype(int)
                label = f"{kind.replace('mlps', 'MLPs')}, {mode} ablation"
                axes.plot(
                    layers, own, color=colour, linestyle=style, marker=marker, markersize=3, label=label
                )
        chance_line(axes, chance)
        axes.set_xlabel("layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        axes.set_title(_ABOUT[about], fontsize=10)
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.25, linewidth=0.5)
    panels[0].set_ylabel("accuracy on test")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    title_of(figure, title)
    return figure


def matrix_figure(values: pd.DataFrame, label: str, title: str) -> Figure:
    """A square of numbers between 0 and 1, each written in its cell.

    Args:
        values: rows and columns by name.
        label: what the numbers are.
        title: what it is of.
    """
    figure = new_figure(3.6 + 0.55 * len(values), 2.2 + 0.4 * len(values))
    axes = figure.subplots()
    image = axes.imshow(values.to_numpy(float), cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(values.columns)), map(plain_text, values.columns), rotation=35, ha="right")
    axes.set_yticks(range(len(values)), map(plain_text, values.index))
    write_numbers(axes, values.to_numpy(float), 8, 0.0, 1.0)
    figure.colorbar(image, label=label)
    title_of(figure, title)
    return figure


def _percent(row: pd.Series, measure: str) -> str:
    half = (row[f"{measure}_high"] - row[f"{measure}_low"]) / 2
    return f"{100 * row[measure]:.1f}{over_seeds(half)}"
