"""Figures by layer and head, in colours that colour-blind eyes can tell apart; matplotlib draws them.

Each function takes tables and gives a `matplotlib.figure.Figure`; `save_figure` writes it as PNG and SVG.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from residual.errors import printable
from residual.files import local_path, written_beside
from residual.libraries import library
from residual.outputs import check_file
from residual.products import FIGURE, MADE_BY
from residual.report.fonts import all_letters
from residual.spectral.geometry import MEASURES
from residual.spectral.similarity import SIMILARITIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEADS, MLPS, INK = "#0072B2", "#D55E00", "#444444"  # of Okabe and Ito's palette
COLOURS = "viridis"
CHANCE = "guessing"
CHANCE_LOOK: dict[str, Any] = {"color": "#767676", "linestyle": (0, (1, 2)), "linewidth": 1.4}
_LOGARITHMIC = ("linear_dimension", "linear_over_two_nn", "participation_ratio")
_WIDTH_OF_A_HEAD, _WIDEST = 0.12, 18.0  # inches
_LETTERS_AN_INCH = 10  # of a title
_LONGEST_LABEL = 32  # letters


def check_matplotlib() -> None:
    """Find out before the long work whether figures can be drawn.

    Raises:
        ResidualError: matplotlib isn't installed, or can't be imported.
    """
    library("matplotlib", "Drawing figures", extra="figures")


def geometry_figure(table: pd.DataFrame, title: str) -> Figure:
    """Layers across, a panel a measure: every head a dot, their mean a line, MLPs squares.

    Args:
        table: from `unit_geometry`.
        title: what it is of.
    """
    halvings = [name for name in table.columns if re.fullmatch(r"two_nn_\d+", name)]
    figure = new_figure(11.0, 6.2)
    panels = figure.subplots(2, 3).flatten().tolist()
    for axes, (name, label) in zip(panels, MEASURES.items(), strict=False):
        _measure_panel(axes, table, name)
        axes.set_title(label, fontsize=10)
    _scale_panel(panels[-1], table, halvings)
    panels[-1].set_title("TwoNN dimension of fewer samples", fontsize=10)
    for axes in panels:
        axes.set_xlabel("layer")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    title_of(figure, title)
    return figure


def panel_figure(tables: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """One page of several encoders: a panel a measure, a line an encoder, from its first layer to its last.

    Args:
        tables: for each encoder the heads of a `unit_geometry`.
        title: what it is of.
    """
    from matplotlib import colormaps

    figure = new_figure(11.0, 6.6)
    panels = figure.subplots(2, 3).flatten().tolist()
    for axes, (name, label) in zip(panels, MEASURES.items(), strict=False):
        for place, (encoder, table) in enumerate(tables.items()):
            layers = table["layer"].astype(int)
            means = table[name].groupby(layers).mean()
            depth = means.index / max(1, layers.max())
            look = {"color": colormaps["tab10"](place % 10), "marker": "osD^vP*X<>"[place % 10]}
            axes.plot(depth, means, markersize=3, linewidth=1.3, label=plain_text(encoder), **look)
        if name in _LOGARITHMIC:
            _logarithmic(axes, pd.concat([table[name] for table in tables.values()]))
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("depth: first layer 0, last 1")
        axes.grid(alpha=0.25, linewidth=0.5)
    panels[-1].set_axis_off()
    panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="center", frameon=False)
    title_of(figure, title)
    return figure


def grid_figure(values: pd.DataFrame, label: str, title: str) -> Figure:
    """Heads across, layers down: one number a head, written in its cell.

    Args:
        values: columns `layer`, `head` and `value`.
        label: what the numbers are.
        title: what it is of.
    """
    grid = values.pivot(index="layer", columns="head", values="value").to_numpy(float)
    layers, heads = grid.shape
    figure = new_figure(max(4.5, 1.8 + 0.52 * heads), 1.5 + 0.36 * layers)
    axes = figure.subplots()
    low, high = _ends(grid)
    image = axes.imshow(grid, cmap=COLOURS, aspect="auto", vmin=low, vmax=high)
    axes.set_xticks(range(heads))
    axes.set_yticks(range(layers))
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    write_numbers(axes, grid, 7, low, high)
    figure.colorbar(image, label=label)
    title_of(figure, title)
    return figure


def blocks_figure(
    rows: Mapping[str, pd.DataFrame], label: str, title: str, low: float = 0, high: float = 1
) -> Figure:
    """One row a dataset, one block a layer, one cell a head.

    Args:
        rows: for each dataset columns `layer`, `head` and `value`.
        label: what the numbers are.
        title: what it is of.
        low, high: ends of the colours.
    """
    ordered = {name: frame.sort_values(["layer", "head"]) for name, frame in rows.items()}
    grid = np.array([frame["value"].to_numpy(float) for frame in ordered.values()])
    layers = next(iter(ordered.values()))["layer"].to_numpy(int)
    width = min(_WIDEST, max(7.0, 2.8 + _WIDTH_OF_A_HEAD * grid.shape[1]))
    figure = new_figure(width, 1.7 + 0.32 * len(grid))
    axes = figure.subplots()
    image = axes.imshow(grid, cmap=COLOURS, aspect="auto", vmin=low, vmax=high, interpolation="none")
    _name_blocks(axes, layers)
    axes.set_yticks(range(len(grid)), [dataset_label(name) for name in ordered])
    axes.set_xlabel("layer (each block one layer, its heads from left to right)")
    figure.colorbar(image, label=label, pad=0.01, extend="min" if (grid < low).any() else "neither")
    title_of(figure, title)
    return figure


def layers_figure(rows: Mapping[str, pd.DataFrame], label: str, title: str) -> Figure:
    """One row a dataset, one column a layer: the mean over heads, written in its cell.

    Args:
        rows: for each dataset columns `layer` and `value`.
        label: what the numbers are.
        title: what it is of.
    """
    means = {name: frame.groupby("layer")["value"].mean() for name, frame in rows.items()}
    grid = np.array([values.to_numpy(float) for values in means.values()])
    figure = new_figure(2.6 + 0.55 * grid.shape[1], 1.6 + 0.34 * len(grid))
    axes = figure.subplots()
    low, high = _ends(grid)
    image = axes.imshow(grid, cmap=COLOURS, aspect="auto", vmin=low, vmax=high)
    axes.set_yticks(range(len(grid)), [dataset_label(name) for name in means])
    axes.set_xticks(range(grid.shape[1]), [str(layer) for layer in next(iter(means.values())).index])
    axes.set_xlabel("layer")
    write_numbers(axes, grid, 8, low, high)
    figure.colorbar(image, label=label, pad=0.02)
    title_of(figure, title)
    return figure


def plain_text(text: str) -> str:
    """A text of unknown origin as matplotlib draws it letter for letter: `$` begins no formula."""
    return "\n".join(map(printable, text.split("\n"))).replace("$", r"\$")


def dataset_label(name: str) -> str:
    """A dataset's name as it fits beside an axis: of one that is longer, such as a folder's, its end."""
    return plain_text(name if len(name) <= _LONGEST_LABEL else f"…{name[1 - _LONGEST_LABEL :]}")


def save_figure(figure: Figure, folder: str | Path, name: str, overwrite: bool = False) -> list[Path]:
    """Write `name.png` and `name.svg`, the same bytes for the same figure on the same machine; letters that
    its font lacks are drawn with another that is installed, or as boxes, with a warning. Earlier figures are
    replaced on request only.

    Raises:
        ExistingError, ForeignError: one is there already, see `overwrite`; or something else is.
        ResidualError: the folder can't be written to.
    """
    for path in _files_of(folder, name):
        check_file(path, FIGURE, overwrite)
    return draw(figure, local_path(folder), name)


def figure_files(names: Iterable[str]) -> tuple[str, ...]:
    """Names of the files of figures."""
    return tuple(f"{name}.{form}" for name in names for form in ("png", "svg"))


def _files_of(folder: str | Path, name: str) -> list[Path]:
    return [Path(folder) / file for file in figure_files([name])]


def draw(figure: Figure, folder: str | Path, name: str) -> list[Path]:
    """`save_figure` into a folder of the library's own, whatever was there.

    Raises:
        ResidualError: the folder can't be written to.
    """
    import matplotlib as mpl

    paths = _files_of(folder, name)
    with mpl.rc_context({"svg.hashsalt": name}), all_letters(figure):
        for path in paths:
            metadata: dict[str, Any] = (
                {"Date": None, "Creator": MADE_BY} if path.suffix == ".svg" else {"Software": MADE_BY}
            )
            with written_beside(path) as beside:
                figure.savefig(beside, format=path.suffix[1:], dpi=150, metadata=metadata)
    return paths


def save_figures(figures: Mapping[str, Figure], folder: str | Path, overwrite: bool = False) -> list[Path]:
    """`save_figure` of each, by its name.

    Raises:
        ExistingError, ForeignError, ResidualError: as there.
    """
    return [path for name, figure in figures.items() for path in save_figure(figure, folder, name, overwrite)]


ANALYSIS_FIGURES = ("shapes", "heads-linear_dimension", "heads-two_nn", "similarity")


def analysis_figures(
    shapes: pd.DataFrame, title: str, similar: pd.DataFrame | None = None, title_similar: str = ""
) -> dict[str, Figure]:
    """All figures of one store, by name: its shapes, heads by dimension, and their similarity with others'.

    Args:
        shapes: from `unit_geometry`.
        title: what they are of.
        similar: from `compare_bases` with the columns of units, and its title.
        title_similar: see `similar`.
    """
    figures = {}
    if shapes["layer"].notna().any():  # not the embedding alone
        figures["shapes"] = geometry_figure(shapes, title)
    heads = shapes[shapes["kind"] == "head"]
    for measure in ("linear_dimension", "two_nn") if len(heads) else ():
        values = heads.assign(value=heads[measure])
        figures[f"heads-{measure}"] = grid_figure(values, MEASURES[measure], title)
    if similar is not None and (similar["kind"] == "head").any():
        heads = similar[similar["kind"] == "head"]
        values = heads.assign(value=heads["spectral_cosine"])
        figures["similarity"] = grid_figure(values, SIMILARITIES["spectral_cosine"], title_similar)
    return figures


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches.

    Raises:
        ResidualError: matplotlib isn't installed, or can't be imported.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def chance_line(axes: Axes, chance: float | None) -> None:
    """What guessing gets, across a panel of accuracies; nothing where that isn't known."""
    if chance is not None and not math.isnan(chance):
        axes.axhline(chance, label=CHANCE, **CHANCE_LOOK)


def title_of(figure: Figure, title: str) -> None:
    """Above everything, in as many lines as the figure's width asks for."""
    lines = textwrap.fill(title, round(_LETTERS_AN_INCH * figure.get_figwidth()))
    figure.suptitle(plain_text(lines), fontsize=11)


def _measure_panel(axes: Axes, table: pd.DataFrame, name: str) -> None:
    heads, mlps = (table[table["kind"] == kind] for kind in ("head", "mlp"))
    if len(heads):
        layers = heads["layer"].astype(int)
        axes.scatter(layers, heads[name], s=9, color=HEADS, alpha=0.35, linewidths=0, label="head")
        means = heads[name].groupby(layers).mean()
        axes.plot(means.index, means, color=HEADS, linewidth=1.8, label="mean of heads")
    if len(mlps):
        axes.plot(
            mlps["layer"].astype(int),
            mlps[name],
            color=MLPS,
            marker="s",
            markersize=4,
            linewidth=1,
            label="MLP",
        )
    if name in _LOGARITHMIC:
        _logarithmic(axes, table[name])
    elif name == "first_explained_variance_ratio":
        axes.set_ylim(0, 1)
    else:
        axes.set_ylim(bottom=0)
    _whole_layers(axes, table)


def _scale_panel(axes: Axes, table: pd.DataFrame, halvings: Sequence[str]) -> None:
    from matplotlib import colormaps

    heads = table[table["kind"] == "head"]
    for halved, name in enumerate(["two_nn", *halvings]):
        share = "all" if halved == 0 else f"1/{name.rpartition('_')[2]}"
        means = heads[name].groupby(heads["layer"].astype(int)).mean()
        if means.isna().all():  # of so few samples there is none
            continue
        colour = colormaps[COLOURS](0.85 * halved / max(1, len(halvings)))
        axes.plot(means.index, means, color=colour, linewidth=1.5, label=share)
    axes.set_ylim(bottom=0)
    if axes.get_lines():
        axes.legend(title="mean of heads", fontsize=8, title_fontsize=8, frameon=False, ncols=2)
    _whole_layers(axes, table)


def _logarithmic(axes: Axes, values: pd.Series) -> None:
    """A logarithmic axis; where some values are 0, as those of a head that writes the same for every sample,
    a linear piece from 0, marked, to the smallest of the others.
    """
    from matplotlib.ticker import LogFormatter, LogLocator, StrMethodFormatter

    if (values == 0).any():
        least = values[values > 0].min()
        axes.set_yscale("symlog", linthresh=1.0 if pd.isna(least) else float(least))
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(0.8, 0.8)))  # where those are too few


def _whole_layers(axes: Axes, table: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    last = int(table["layer"].fillna(0).max())  # the embedding has none
    axes.set_xlim(-0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.tick_params(colors=INK, labelsize=8)


def write_numbers(axes: Axes, grid: np.ndarray, size: int, low: float, high: float) -> None:
    """Each number in its cell, in an ink that shows on the colour between `low` and `high`."""
    for (row, column), value in np.ndenumerate(grid):
        if not math.isnan(value):
            ink = "white" if value < low + 0.6 * (high - low) else "black"
            axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=size, color=ink)


def _ends(grid: np.ndarray) -> tuple[float, float]:
    """What the colours go from and to; where all numbers are (nearly) one, something around it."""
    known = grid[np.isfinite(grid)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    room = 0.5 if high - low < 1e-6 * max(abs(low), abs(high), 1e-6) else 0.0
    return float(low - room), float(high + room)


def _name_blocks(axes: Axes, layers: np.ndarray) -> None:
    starts = np.flatnonzero(np.diff(layers, prepend=-1))
    ends = np.append(starts[1:], len(layers))
    for start in starts[1:]:
        axes.axvline(start - 0.5, color="white", linewidth=2)
    axes.set_xticks((starts + ends - 1) / 2, [str(layer) for layer in layers[starts]])
    axes.tick_params(length=0)
