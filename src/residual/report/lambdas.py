"""Trained weights as a picture: head by layer, and the strongest components with their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from residual.adapters.adapter import Adapter
from residual.adapters.inspection import Component, strongest_components, unit_gains
from residual.errors import printable
from residual.report.figures import INK, new_figure, plain_text, title_of
from residual.report.layout import Table
from residual.text.classifier import ZeroShotClassifier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMED = 8  # components
_SPAN = 2.0  # doublings at which a colour is full
_LETTERS = 26  # of a class's name
_INCHES_A_LETTER = 0.07  # of what is written beside


def components_table(
    adapter: Adapter, units: pd.DataFrame, classifier: ZeroShotClassifier, count: int = _NAMED
) -> Table:
    """The components that move the output most: weight, part of the variance, classes at each end."""
    table = Table("The strongest components")
    table.add_column("component")
    for heading in ("weight", "of variance"):
        table.add_column(heading, justify="right")
    table.add_column("high scores speak for")
    table.add_column("low scores speak for")
    for component in strongest_components(adapter, count):
        low, high = (", ".join(map(_short, names)) for names in component.classes(classifier))
        table.add_row(
            component_title(component, units),
            f"{component.weight:+.2f}",
            f"{100 * component.explained:.0f} %",
            high,
            low,
        )
    return table


def lambdas_figure(
    adapter: Adapter,
    units: pd.DataFrame,
    classifier: ZeroShotClassifier,
    title: str,
    count: int = _NAMED,
) -> Figure:
    """Heads (and MLPs) across, layers down: how much wider each contributes than all together; the strongest
    components are numbered in their cells and named beside.

    Args:
        adapter: one that weights units.
        units: the table of units.
        classifier: whose classes name the components.
        title: what it is of.
        count: how many components are named.
    """
    from matplotlib.colors import TwoSlopeNorm

    gains = unit_gains(adapter, units)
    components = strongest_components(adapter, count) if adapter.of_components else []
    grid, columns = _grid(gains)
    marks: dict[tuple[int, int], list[str]] = {}
    for number, component in enumerate(components, 1):
        unit = units.iloc[component.unit]
        column = columns.index("MLP") if unit["kind"] == "mlp" else int(unit["head"])
        marks.setdefault((int(unit["layer"]), column), []).append(str(number))
    layers, width = grid.shape
    lines = []
    for number, component in enumerate(components, 1):
        low, high = (", ".join(map(_short, names)) for names in component.classes(classifier, 2))
        lines.append(f"{number}  {component_title(component, units)}, weight {component.weight:+.2f}")
        lines += [f"     high scores speak for {high or '–'}", f"     low scores speak for {low or '–'}"]
    across, text = max(3.6, 0.6 * width), max(3.2, _INCHES_A_LETTER * max(map(len, lines), default=0))
    figure = new_figure(1.6 + across + text, max(4.4, 1.6 + 0.42 * layers, 0.6 + 0.16 * len(lines)))
    axes, beside = figure.subplots(1, 2, width_ratios=[across, text])
    with np.errstate(divide="ignore"):
        doublings = np.clip(np.log2(grid), -_SPAN, _SPAN)
    image = axes.imshow(doublings, cmap="PuOr_r", norm=TwoSlopeNorm(0.0, -_SPAN, _SPAN), aspect="auto")
    axes.set_xticks(range(width), columns)
    axes.set_yticks(range(layers), [str(layer) for layer in range(layers)])
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    for (layer, column), numbers in marks.items():
        axes.text(
            column, layer, _three_a_row(numbers), ha="center", va="center", fontsize=8, weight="bold",
            color="white" if abs(doublings[layer, column]) > 1.2 else "black",
        )  # fmt: skip
    bar = figure.colorbar(image, ax=axes, ticks=[-2, -1, 0, 1, 2], pad=0.02)
    bar.ax.set_yticklabels(["¼", "½", "1", "2", "4"])
    bar.set_label("spread in the output, of that of all units")
    beside.axis("off")
    looks = {"fontsize": 8.5, "color": INK, "linespacing": 1.35, "transform": beside.transAxes}
    beside.text(0, 1, plain_text("\n".join(lines)), va="top", **looks)
    title_of(figure, title)
    return figure


def component_title(component: Component, units: pd.DataFrame) -> str:
    """Where it is: layer, head, and which of its components."""
    unit = units.iloc[component.unit]
    where = f"head {unit['head']}" if unit["kind"] == "head" else "MLP"
    return f"Layer {unit['layer']}, {where}, component {component.index + 1}"


def _grid(gains: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    heads, mlps = gains[gains["kind"] == "head"], gains[gains["kind"] == "mlp"]
    columns = [str(head) for head in range(int(heads["head"].max()) + 1)] if len(heads) else []
    columns += ["MLP"] if len(mlps) else []
    grid = np.full((int(gains["layer"].max()) + 1, len(columns)), np.nan)
    for row in heads.itertuples():
        grid[int(row.layer), int(row.head)] = row.relative
    for row in mlps.itertuples():
        grid[int(row.layer), -1] = row.relative
    return grid, columns


def _three_a_row(numbers: list[str]) -> str:
    return "\n".join(" ".join(numbers[start : start + 3]) for start in range(0, len(numbers), 3))


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"
