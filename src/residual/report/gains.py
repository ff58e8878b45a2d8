"""What weights do to each unit, as a grid of coloured cells: layers down, heads and the MLP across."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

STEPS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the legend
_COLOURS = {  # on a light page and on a dark one: what is below 1, at 1, above
    "light": ((33, 102, 172), (255, 255, 255), (190, 75, 0)),
    "dark": ((90, 165, 235), (34, 37, 43), (240, 140, 40)),
}


def gain_grid(gains: pd.DataFrame) -> dict[str, Any]:
    """Columns' names, and for each layer its cells: what it says, its colours, where it leads."""
    heads, mlps = gains[gains["kind"] == "head"], gains[gains["kind"] == "mlp"]
    columns = [f"head {head}" for head in range(int(heads["head"].max()) + 1)] if len(heads) else []
    columns += ["MLP"] if len(mlps) else []
    rows = []
    for layer in sorted(gains["layer"].unique()):
        cells = [*heads[heads["layer"] == layer].sort_values("head").itertuples()]
        cells += [*mlps[mlps["layer"] == layer].itertuples()]
        rows.append((f"layer {layer}", [_cell(cell) for cell in cells]))
    return {"columns": columns, "rows": rows}


def unit_anchor(kind: str, layer: int, head: Any) -> str:
    """Of a unit's section on the page; an MLP has no head."""
    return f"unit-{layer}-{'mlp' if kind == 'mlp' else head}"


def unit_title(kind: str, layer: int, head: Any) -> str:
    """`Layer 7, head 2`."""
    return f"Layer {layer}, {'MLP' if kind == 'mlp' else f'head {head}'}"


def gain_colours(gain: float) -> dict[str, tuple[str, str]]:
    """Ground and ink for a gain, of a "light" page and of a "dark" one: blue below 1, orange above, in even
    steps of the logarithm, full at a quarter and at fourfold.

    Blue and orange keep apart for colour-blind eyes; the ink is black or white, whichever is clearer.
    """
    at = max(-1.0, min(1.0, math.log2(max(gain, 1e-6)) / 2))
    colours = {}
    for page, (below, middle, above) in _COLOURS.items():
        far = np.array(below if at < 0 else above)
        colour = np.array(middle) * (1 - abs(at)) + far * abs(at)
        ground = f"rgb({', '.join(str(round(part)) for part in colour)})"
        ink = "#000" if _luminance(colour) > 0.179 else "#fff"  # there both are equally clear
        colours[page] = ground, ink
    return colours


def _cell(unit: Any) -> dict[str, Any]:
    where = unit.kind, int(unit.layer), unit.head
    return {
        "text": f"{unit.relative:.2f}",
        "colours": gain_colours(unit.relative),
        "anchor": unit_anchor(*where),
        "title": f"{unit_title(*where)}: {unit.relative:.2f}, by {unit.weights} weights",
    }


def _luminance(colour: np.ndarray) -> float:
    """Relative, as WCAG 2 defines it."""
    parts = colour / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
