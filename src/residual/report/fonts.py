"""Letters that a figure's own font lacks, as those of most of the world's scripts: they are drawn with
another font that is installed.

`save_figure` calls it. What no font has is drawn as boxes, and told in one warning where matplotlib has one a
letter, a text and a file.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING

from residual.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_BOXES = "Last Resort"  # a font that has a box for every letter
_NAMED = 8  # letters in a warning


@contextmanager
def all_letters(figure: Figure) -> Generator[None]:
    """Give a figure's texts the fonts that they need, for drawing it within.

    Warns:
        UserWarning: no installed font has some letters.
    """
    texts = _texts(figure)
    lacking = {text: set(text.get_text()) - _letters(text.get_fontfamily()) for text in texts}
    wanted, names = set().union(*lacking.values()), []
    for name in _installed():
        if not wanted:
            break
        if had := wanted & _letters_of(name):
            wanted -= had
            names.append(name)
    for text in (text for text, letters in lacking.items() if letters):
        text.set_fontfamily([*text.get_fontfamily(), *names])
    with warnings.catch_warnings():
        if wanted:
            few = printable(" ".join(sorted(wanted)[:_NAMED])) + (" …" if len(wanted) > _NAMED else "")
            warnings.warn(
                f"No installed font has {few}: they are boxes in figures. Install one that does, such as one "
                "of the Noto fonts.",
                stacklevel=4,
            )
            warnings.filterwarnings("ignore", r"Glyph \d+ ", UserWarning)
        yield


def _texts(figure: Figure) -> list[Text]:
    from matplotlib.text import Text

    return [text for text in figure.findobj(Text) if isinstance(text, Text) and not text.get_text().isascii()]


def _letters(families: Iterable[str]) -> set[str]:
    """What fonts of these families have; a line's end takes no letter."""
    from matplotlib import rcParams

    names = [name for family in families for name in rcParams.get(f"font.{family}", [family])]
    return {"\n"}.union(*map(_letters_of, names))


@cache
def _letters_of(name: str) -> set[str]:
    """The letters of an installed font, none of another."""
    from matplotlib.font_manager import fontManager, get_font

    letters: set[str] = set()
    for face in (each for each in fontManager.ttflist if each.name == name and each.style == "normal"):
        with suppress(OSError, RuntimeError):  # the list is older than what is installed, or a file is broken
            font = get_font(face.fname)
            letters |= set(map(chr, font.get_charmap())) if font.scalable else set()
    return letters


@cache
def _installed() -> tuple[str, ...]:
    """Names of all fonts, but for those of boxes."""
    from matplotlib.font_manager import fontManager

    return tuple(sorted({face.name for face in fontManager.ttflist if not face.name.startswith(_BOXES)}))
