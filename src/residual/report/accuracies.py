"""Accuracies of methods on datasets: tables as the paper has them, a radar plot, and what weights buy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from residual.adapters.methods import METHODS
from residual.intervals import OVER_SEEDS, mean_and_interval, over_pictures, over_seeds, wilson
from residual.report.figures import (
    CHANCE,
    CHANCE_LOOK,
    INK,
    chance_line,
    dataset_label,
    new_figure,
    title_of,
)
from residual.report.geometry import latex_table, markdown_table
from residual.report.tables import METHOD_NAMES, SHOTS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of Okabe and Ito's palette, which colour-blind eyes can tell apart; the markers do so in print.
_LOOKS = {"zero_shot": ("#000000", "o", "--")} | {name: each.look for name, each in METHODS.items()}
_SHARES = {share / 100: f"{share} %" for share in (20, 40, 60, 80, 100)}


def accuracy_frame(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a dataset and method, from cells "dataset.method" or "dataset.method@shots" that hold a row a
    seed.

    Columns: `dataset, method, shots` (pictures of each class, 0 for all), `accuracy` (mean over seeds),
    `interval` (half the width of its 95 % interval by Student's t, NaN for one seed), `seeds, weights,
    seconds` (mean), `chance` (what guessing gets), `tested` (how many pictures) and `low, high` (Wilson's
    95 % interval over these); NaN where cells don't tell the number of classes or of pictures.
    """
    rows = []
    for cell, table in tables.items():
        dataset, _, method = cell.rpartition(".")
        method, _, shots = method.partition(SHOTS)
        mean, half = mean_and_interval(table["accuracy"].tolist())
        tested = int(table["tested"].iloc[0]) if "tested" in table else 0
        _, low, high = wilson(mean * tested, tested) if tested else (mean, math.nan, math.nan)
        rows.append(
            {
                "dataset": dataset,
                "method": method,
                "shots": int(shots or 0),
                "accuracy": mean,
                "interval": math.nan if half is None else half,
                "seeds": len(table),
                "weights": int(table["weights"].iloc[0]),
                "seconds": float(table["seconds"].mean()),
                "chance": 1 / int(table["classes"].iloc[0]) if "classes" in table else math.nan,
                "tested": tested or math.nan,
                "low": low,
                "high": high,
            }
        )
    frame = pd.DataFrame(rows)
    order = {method: position for position, method in enumerate(METHOD_NAMES)}
    datasets = {name: position for position, name in enumerate(dict.fromkeys(frame["dataset"]))}
    keys = frame.assign(m=frame["method"].map(order), d=frame["dataset"].map(datasets))
    return frame.loc[keys.sort_values(["d", "m", "shots"]).index].reset_index(drop=True)


def accuracy_lines(frame: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Headings, and a line a method: its name, accuracy on each dataset in per cent, their mean, weights."""
    datasets = list(dict.fromkeys(frame["dataset"]))
    lines = []
    for method, rows in _by_method(frame):
        own = rows.set_index("dataset")
        cells = [_percent(own.loc[name]) if name in own.index else "–" for name in datasets]
        whole = len(own) == len(datasets)
        mean = f"{100 * own['accuracy'].mean():.1f}" if whole else "–"
        lines.append([METHOD_NAMES[method], *cells, mean, _weights(own["weights"].tolist())])
    return ["method", *datasets, "mean", "weights"], lines


def pictures_lines(frame: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Headings, and a line a dataset: test pictures, and each method's accuracy with its range over them."""
    methods = [method for method, _ in _by_method(frame)]
    lines = []
    for dataset, rows in frame.groupby("dataset", sort=False):
        own = rows.set_index("method")
        cells = [_over_pictures(own.loc[each]) if each in own.index else "–" for each in methods]
        tested = own["tested"].max()
        lines.append([str(dataset), "–" if math.isnan(tested) else f"{int(tested):,}", *cells])
    return ["dataset", "test pictures", *(METHOD_NAMES[each] for each in methods)], lines


def accuracies_markdown(frame: pd.DataFrame, encoder: str) -> str:
    """The table in Markdown."""
    return markdown_table(*accuracy_lines(frame), _title(frame, encoder))


def accuracies_latex(frame: pd.DataFrame, encoder: str) -> str:
    """The table for LaTeX, with booktabs."""
    return latex_table(*accuracy_lines(frame), _title(frame, encoder))


def radar_figure(frame: pd.DataFrame, title: str) -> Figure:
    """Datasets around, accuracy outwards, a line a method and one for guessing; side by side where there are
    fewer than three.

    Args:
        frame: from `accuracy_frame`.
        title: what it is of.
    """
    datasets = list(dict.fromkeys(frame["dataset"]))
    rows = {
        method: own.set_index("dataset")["accuracy"].reindex(datasets).tolist()
        for method, own in _by_method(frame)
    }
    chance = frame.groupby("dataset")["chance"].first().reindex(datasets).tolist()
    figure = (_around if len(datasets) > 2 else _side_by_side)(datasets, rows, chance)
    _legend(figure, len(rows))
    title_of(figure, title)
    return figure


def _around(datasets: Sequence[str], rows: Mapping[str, list[float]], chance: list[float]) -> Figure:
    angles = [2 * math.pi * position / len(datasets) for position in range(len(datasets))]
    figure = new_figure(8.0, 7.4)
    axes = figure.add_subplot(projection="polar")
    for method, accuracies in rows.items():
        colour, marker, line = _LOOKS[method]
        axes.plot(
            [*angles, angles[0]], [*accuracies, accuracies[0]], line, color=colour, marker=marker,
            markersize=4, linewidth=1.4, label=METHOD_NAMES[method], clip_on=False,
        )  # fmt: skip
    if not any(map(math.isnan, chance)):
        axes.plot([*angles, angles[0]], [*chance, chance[0]], label=CHANCE, **CHANCE_LOOK)
    axes.set_xticks(angles, [dataset_label(name) for name in datasets])
    axes.tick_params(axis="x", pad=6)
    for label, angle in zip(axes.get_xticklabels(), angles, strict=True):
        right, up = math.cos(angle), math.sin(angle)
        label.set_horizontalalignment("center" if abs(right) < 0.1 else "left" if right > 0 else "right")
        label.set_verticalalignment("center" if abs(up) < 0.1 else "bottom" if up > 0 else "top")
    axes.set_ylim(0, 1)
    axes.set_yticks(list(_SHARES), [""] * len(_SHARES))
    white = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
    for share, percent in _SHARES.items():  # between two datasets, above all lines
        axes.text(
            math.pi / len(datasets), share, percent, ha="center", va="center", fontsize=8, color=INK,
            bbox=white, zorder=5,
        )  # fmt: skip
    axes.grid(color="#dddddd")
    axes.spines["polar"].set_color("#dddddd")
    return figure


def _side_by_side(datasets: Sequence[str], rows: Mapping[str, list[float]], chance: list[float]) -> Figure:
    figure = new_figure(8.0, 4.8)
    axes = figure.subplots()
    step = min(0.1, 0.9 / len(rows))
    for number, (method, accuracies) in enumerate(rows.items()):
        colour, marker, _ = _LOOKS[method]
        shift = step * (number - (len(rows) - 1) / 2)
        axes.plot(
            [position + shift for position in range(len(datasets))], accuracies, linestyle="", color=colour,
            marker=marker, markersize=8, label=METHOD_NAMES[method],
        )  # fmt: skip
    if not any(map(math.isnan, chance)):
        places = range(len(datasets))
        left, right = ([at + side for at in places] for side in (-0.45, 0.45))
        axes.hlines(chance, left, right, label=CHANCE, **CHANCE_LOOK)
    axes.set_xticks(range(len(datasets)), [dataset_label(name) for name in datasets])
    axes.set_xlim(-0.5, len(datasets) - 0.5)
    axes.set_ylim(0, 1.03)
    axes.set_yticks(list(_SHARES), list(_SHARES.values()))
    axes.set_ylabel("accuracy on test")
    axes.grid(color="#eeeeee")
    return figure


def weights_figure(frame: pd.DataFrame, title: str) -> Figure:
    """Weights trained across, on a logarithmic axis; mean accuracy over datasets up, a point a method. What
    trains none has no place on such an axis: it is a line across, as guessing is.
    """
    from matplotlib.ticker import PercentFormatter

    figure = new_figure(7.0, 4.4)
    axes = figure.subplots()
    for method, own in _by_method(frame):
        colour, marker, _ = _LOOKS[method]
        weights, mean = own["weights"].mean(), own["accuracy"].mean()
        if weights:
            axes.plot([weights], [mean], marker, color=colour, markersize=9, label=METHOD_NAMES[method])
        else:
            axes.axhline(mean, color=colour, linestyle="--", label=f"{METHOD_NAMES[method]}: no weights")
    chance_line(axes, statistics.fmean(frame.groupby("dataset")["chance"].first()))
    if frame["weights"].any():
        axes.set_xscale("log")
    else:
        axes.set_xticks([])
    axes.set_xlabel("weights trained")
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_ylabel("mean accuracy on test over datasets")
    axes.grid(color="#eeeeee")
    axes.margins(0.06, 0.1)
    _legend(figure, frame["method"].nunique())
    title_of(figure, title)
    return figure


def shots_lines(frame: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Headings, and a line a method: its accuracy in per cent by pictures of each class, of one dataset."""
    shots = sorted(set(frame["shots"]) - {0}) + [0] * bool((frame["shots"] == 0).any())
    lines = []
    for method, rows in _by_method(frame):
        own = rows.set_index("shots")
        cells = [_percent(own.loc[number]) if number in own.index else "–" for number in shots]
        lines.append([METHOD_NAMES[method], *cells])
    return ["method", *(str(number or "all") for number in shots)], lines


def shots_figure(frame: pd.DataFrame, title: str) -> Figure:
    """Pictures of each class across, accuracy of one dataset up, a line a method with its intervals."""
    figure = new_figure(7.0, 4.8)
    axes = figure.subplots()
    shots = sorted(set(frame["shots"]) - {0})
    places = {number: place for place, number in enumerate([*shots, 0])}
    for method, rows in _by_method(frame):
        colour, marker, line = _LOOKS[method]
        own = rows.assign(place=rows["shots"].map(places)).sort_values("place")
        few = own[own["shots"] > 0]
        axes.errorbar(
            own["place"], own["accuracy"], own["interval"].fillna(0), linestyle="", color=colour, capsize=2,
            elinewidth=1,
        )  # fmt: skip
        axes.plot(own["place"], own["accuracy"], marker, color=colour, markersize=6)
        axes.plot(
            few["place"], few["accuracy"], line, color=colour, marker=marker, label=METHOD_NAMES[method]
        )
    axes.set_xticks(list(places.values()), [str(number or "all") for number in places])
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 1.03))  # intervals of few draws go beyond
    chance_line(axes, frame["chance"].iloc[0])
    axes.set_xlabel("pictures of each class")
    axes.set_ylabel("accuracy on test (bars: 95 % over draws)")
    axes.grid(color="#eeeeee")
    _legend(figure, frame["method"].nunique())
    title_of(figure, title)
    return figure


def _legend(figure: Figure, methods: int) -> None:
    figure.legend(loc="outside lower center", ncols=4 if methods < 8 else 3, frameon=False)


def _by_method(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each method, in the order that methods have everywhere."""
    return [(m, frame[frame["method"] == m]) for m in METHOD_NAMES if (frame["method"] == m).any()]


def _percent(row: pd.Series) -> str:
    return f"{100 * row['accuracy']:.1f}{over_seeds(row['interval'])}"


def _over_pictures(row: pd.Series) -> str:
    over = "" if math.isnan(row["tested"]) else f" {over_pictures((row['low'], row['high']))}"
    return f"{100 * row['accuracy']:.1f}{over}"


def _weights(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _title(frame: pd.DataFrame, encoder: str) -> str:
    seeds = int(frame["seeds"].max())
    over = f", mean; {OVER_SEEDS} over {seeds} seeds, not over test pictures" if seeds > 1 else ""
    return f"{encoder}: accuracy on test in per cent{over}; weights trained"
