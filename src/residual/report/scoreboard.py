"""The scoreboard of ways to choose heads: for the terminal, for Markdown and LaTeX, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
from rich.table import Table
from rich.text import Text

from residual.report.figures import new_figure, title_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "all units": "all units",
    "all heads": "all heads",
    "accuracy": "(S) accuracy alone",
    "span": "(U|T) correlation in the classes' span",
    "correlation": "(U) correlation with the output",
    "pursuit": "(P) variance that texts explain",
    "trained": "(O) trained weights",
    "random": "(R) random",
}
_SHORT = {
    "accuracy": "S alone",
    "span": "U|T in span",
    "correlation": "U output",
    "pursuit": "P texts",
    "trained": "O trained",
    "random": "R random",
}
# Of Okabe and Ito's palette, with a marker each, for those who see no colours.
_LOOKS = {
    "accuracy": ("#0072B2", "o"),
    "span": ("#D55E00", "s"),
    "correlation": ("#009E73", "^"),
    "pursuit": ("#CC79A7", "D"),
    "trained": ("#56B4E9", "v"),
    "random": ("#555555", "x"),
}


def scoreboard_cells(
    rows: pd.DataFrame, measure: str = "accuracy", labels: Mapping[str, str] = LABELS
) -> tuple[list[str], list[list[str]]]:
    """Headings, and for each way its figures by share, in per cent with half their interval's width."""
    shares = sorted(rows["share"].dropna().unique())
    heads = rows.dropna(subset="share").groupby("share")["heads"].first()
    headings = ["kept", *(f"{share:.0%} ({heads[share]})" for share in shares), "100%"]
    cells = []
    for way in [way for way in LABELS if way in set(rows["way"])]:
        own = rows[rows["way"] == way]
        if own["share"].isna().all():
            figures = [*[""] * len(shares), _percent(own.iloc[0], measure)]
        else:
            figures = [*(_percent(own.set_index("share").loc[share], measure) for share in shares), ""]
        cells.append([labels.get(way, way), *figures])
    return headings, cells


def scoreboard_table(rows: pd.DataFrame, title: str, measure: str = "accuracy") -> Table:
    """A row a way, a column a share of heads."""
    headings, cells = scoreboard_cells(rows, measure, _SHORT)
    table = Table(title=Text(title), box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    for row in cells:
        table.add_row(*(cell.replace(" ± ", "±") for cell in row))
    return table


def markdown(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, the first column to the left."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(headings: Sequence[str], cells: Sequence[Sequence[str]], caption: str) -> str:
    """The same as a LaTeX table, with booktabs."""
    lines = [" & ".join(map(_escaped, row)) + r" \\" for row in (headings, *cells)]
    body = "\n".join([r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"])
    columns = "l" + "r" * (len(headings) - 1)
    return (
        "\\begin{table}\n\\centering\n\\caption{"
        + _escaped(caption)
        + "}\n\\begin{tabular}{"
        + columns
        + "}\n"
        f"{body}\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def scoreboard_figure(rows: pd.DataFrame, title: str) -> Figure:
    """Accuracy by the share of heads that is kept: a line a way, its interval as a band.

    Args:
        rows: those of a `Scoreboard`.
        title: what it is of.
    """
    figure = new_figure(7.0, 4.4)
    axes = figure.subplots()
    shares = sorted(rows["share"].dropna().unique())
    for way, (colour, marker) in _LOOKS.items():
        own = rows[rows["way"] == way].sort_values("share")
        if len(own):
            x = 100 * own["share"]
            axes.plot(x, own["accuracy"], color=colour, marker=marker, markersize=4, label=LABELS[way])
            axes.fill_between(x, own["accuracy_low"], own["accuracy_high"], color=colour, alpha=0.15, lw=0)
    for way, style in (("all units", "-"), ("all heads", ":")):
        level = float(rows.loc[rows["way"] == way, "accuracy"].iloc[0])
        axes.axhline(level, color="black", linewidth=1, linestyle=style, label=LABELS[way])
    axes.set_xscale("log")
    axes.set_xticks([100 * share for share in shares], [f"{100 * share:g}" for share in shares])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    axes.set_xlabel("heads kept, per cent")
    axes.set_ylabel("accuracy on test")
    axes.grid(alpha=0.25, linewidth=0.5)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    title_of(figure, title)
    return figure


def _percent(row: pd.Series, measure: str) -> str:
    half = (row[f"{measure}_high"] - row[f"{measure}_low"]) / 2
    return f"{100 * row[measure]:.1f} ± {100 * half:.1f}"


def _escaped(text: str) -> str:
    for sign in "\\%&_#$":
        text = text.replace(sign, r"\textbackslash{}" if sign == "\\" else f"\\{sign}")
    return text.replace("±", r"$\pm$").replace("|", r"$\mid$")
