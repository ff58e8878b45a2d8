"""Maps over their pictures as figures, and what they add up to as a table."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from residual.errors import printable
from residual.maps.colours import WHOLE, Box, heat, overlay
from residual.maps.maps import Maps
from residual.report.figures import INK, new_figure, plain_text, title_of
from residual.report.layout import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL, _WORDS, _MOST_IN_A_ROW = 2.1, 0.9, 6  # inches wide, and of words; panels
_LEAST, _MOST = 256, 640  # pixels of a picture's longer side as it is drawn
_LETTERS = 30  # of a line above a panel
_SMALL = 7.5


@dataclass(frozen=True, eq=False)
class MappedPicture:
    """One picture and its maps.

    Args:
        name: of the picture, as others may see it.
        picture: upright.
        box: the part of it that the maps are of.
        maps: of this picture alone.
        about: what else there is to say of it, as which class is predicted.
    """

    name: str
    picture: Image.Image
    box: Box
    maps: Maps
    about: str = ""


def maps_figure(mapped: MappedPicture, scale: float, title: str, less: str = "") -> Figure:
    """The picture, and beside it each map over it, with what it adds and what it leaves out.

    Args:
        mapped: a picture.
        scale: of the colours, one for all figures of a set.
        title: what it is of.
        less: what is taken off every score, in words.
    """
    maps, names = mapped.maps, mapped.maps.names
    across = min(_MOST_IN_A_ROW, len(names) + 1)
    down = math.ceil((len(names) + 1) / across)
    width, height = mapped.picture.size
    tall = min(2.0, max(0.4, height / width)) * _PANEL + _WORDS
    figure = new_figure(_PANEL * across + 0.9, tall * down + 0.3)
    panels = figure.subplots(down, across, squeeze=False).flatten().tolist()
    drawn = _drawn(mapped.picture)
    first, *others = panels
    seen = "" if mapped.box == WHOLE else "dashed: what the encoder sees"
    _show(first, drawn, "the picture", "\n".join(filter(None, (seen, mapped.about))))
    if seen:
        _outline(first, mapped.box, drawn.size)
    for panel, place in zip(others, range(len(names)), strict=False):
        values = maps.values[0, place]
        _show(panel, overlay(drawn, values, scale, mapped.box), names[place], _sums(maps, place))
    for panel in others[len(names) :]:
        panel.set_axis_off()
    label = f"{maps.of} by patch" + (f",\nless {less}" if less else "")
    _colour_bar(figure, panels, scale, bool((maps.values.abs() > scale).any()), label)
    title_of(figure, title)
    return figure


def maps_table(mapped: Sequence[MappedPicture], title: str) -> Table:
    """A row a map: the whole score, and its three parts."""
    table = Table(title)
    table.add_column("picture")
    table.add_column("map of")
    for heading in (mapped[0].maps.of, "patches", "other tokens", "the rest"):
        table.add_column(heading, justify="right")
    for each in mapped:
        for place, name in enumerate(each.maps.names):
            total, *parts = (signed(part, each.maps.of) for part in parts_of(each.maps, place))
            table.add_row(printable(each.name), printable(name), total, *parts)
    return table


def parts_of(maps: Maps, place: int) -> tuple[float, float, float, float]:
    """Of one map of one picture the whole score, what its patches add, what other tokens, and other units."""
    grid = float(maps.values[0, place].sum())
    return (float(maps.total[0, place]), grid, float(maps.elsewhere[0, place]), float(maps.rest[0, place]))


def signed(value: float, of: str) -> str:
    """With its sign, and as many digits as what it is of asks for."""
    digits = 3 if of == "cosine" else 2
    return f"{value:+z.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _sums(maps: Maps, place: int) -> str:
    total, grid, elsewhere, rest = (signed(part, maps.of) for part in parts_of(maps, place))
    return f"patches {grid}\nother tokens {elsewhere}\nthe rest {rest}\nin all: {maps.of} {total}"


def _show(panel: Axes, picture: Image.Image, above: str, below: str) -> None:
    panel.imshow(np.asarray(picture), interpolation="none")
    lines = textwrap.wrap(above, _LETTERS, max_lines=2, placeholder=" …")
    panel.set_title(plain_text("\n".join(lines)), fontsize=9)
    panel.set_xlabel(plain_text(below), fontsize=_SMALL, color=INK)
    panel.set_xticks([])
    panel.set_yticks([])
    for side in panel.spines.values():
        side.set_visible(False)


def _outline(panel: Axes, box: Box, size: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    left, top, right, bottom = (float(end) * of for end, of in zip(box, size * 2, strict=True))
    corner, sides = (left - 0.5, top - 0.5), (right - left, bottom - top)
    for colour, line in (("white", "-"), ("black", "--")):
        panel.add_patch(
            Rectangle(corner, *sides, fill=False, edgecolor=colour, linestyle=line, clip_on=False)
        )


def _colour_bar(figure: Figure, panels: list[Axes], scale: float, beyond: bool, label: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colours = heat(np.linspace(-1, 1, 255), 1.0) / 255
    solid = colours[:, 3:] * colours[:, :3] + (1 - colours[:, 3:]) * 0.92  # over a pale picture
    scale, tall = scale or 1.0, figure.get_figheight()
    shown = ScalarMappable(Normalize(-scale, scale), ListedColormap(solid))
    bar = figure.colorbar(
        shown, ax=panels, extend="both" if beyond else "neither", aspect=24, shrink=min(1, 2.8 / tall)
    )
    bar.set_label(f"{label}\norange for it, blue against", fontsize=_SMALL)
    bar.ax.tick_params(labelsize=_SMALL)


def _drawn(picture: Image.Image) -> Image.Image:
    """In a size to draw: whole pixels of a small one, so that none is made up."""
    longest = max(picture.size)
    if longest < _LEAST:
        times = math.ceil(_LEAST / longest)
        return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    smaller = picture.copy()
    smaller.thumbnail((_MOST, _MOST))
    return smaller
