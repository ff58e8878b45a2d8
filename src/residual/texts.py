"""Names and lists of lines as people write them: one way to read, to refuse and to compare them.

A name is kept as it was written, whatever its script: joiners, combining marks, emoji. Only comparing folds
what can't be seen.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable

from residual.errors import printable

# Soft hyphen, marks of direction, space and joiner of no width, variants of one sign; and what joins letters
# of scripts that join none. Between others a joiner changes what is read: می‌روم.
_UNSEEN = re.compile("[\u00ad\u061c\u180e\u200b\u200e\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]")
_JOINS_NOTHING = re.compile("(?:(?<=[\0-\x7f])|^)[\u200c\u200d]+")

ASCII_SIGNS = "residual.ascii_signs"  # how `str.encode` and streams take what an encoding lacks
_SIGNS = {
    "±": "+/-", "−": "-", "–": "-", "—": "-", "…": "...", "×": "x", "·": ".", "•": "*", "→": "->", "≤": "<=",
    "≥": ">=", "≠": "!=", "≈": "~", "²": "^2", "‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ",
    "λ": "lambda", "σ": "sigma", "μ": "mu", "π": "pi", "Σ": "Sum", "Φ": "Phi", "█": "#", "─": "-", "━": "-",
    "═": "-", "╸": "-", "╺": "-", "│": "|", "┃": "|", "║": "|",
}  # fmt: skip


def text_lines(content: str) -> list[str]:
    """The lines of a text, without space around them; empty ones at its end are none.

    They end as editors end them, in `\\n`, `\\r\\n` or `\\r`: `str.splitlines` ends them at signs inside
    of names, too, which would shift all that follow.
    """
    lines = [line.strip().strip("\ufeff").strip() for line in re.split(r"\r\n?|\n", content)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def folded(name: str) -> str:
    """What all spellings of a name have in common that look the same: normal form C, without unseen signs and
    with single spaces. A file system may give `é` as one sign or as two.

    Example:
        >>> from residual.texts import folded
        >>> folded("cafe\\u0301") == folded("caf\\u00e9"), folded("cafe") == folded("café")
        (True, False)
    """
    if not name.isascii():
        name = unicodedata.normalize("NFC", _JOINS_NOTHING.sub("", _UNSEEN.sub("", name)))
    return " ".join(name.split())


def distinct(names: Iterable[str]) -> list[str]:
    """Names, sorted; of several spellings of one the shortest."""
    longest_first = sorted(set(names), key=lambda name: (len(name), name), reverse=True)
    return sorted({folded(name): name for name in longest_first}.values())


def why_no_name(text: str) -> str:
    """Why a text is no name, as in "is empty"; "" of one that is."""
    if not folded(text).strip(" \u200c\u200d"):
        return "is empty" if not text.strip() else "has nothing to be seen in it"
    if printable(text) != text:
        return "has control characters, or marks that turn the writing's direction"
    return ""


def in_encoding(text: str, encoding: str) -> str:
    """A text without what an encoding lacks: what has an ASCII sign of its own as that, the rest escaped.

    Example:
        >>> in_encoding("λ: 98.5 ± 0.2 % …", "ascii"), in_encoding("98.5 ± 0.2 %", "cp1252")
        ('lambda: 98.5 +/- 0.2 % ...', '98.5 ± 0.2 %')
    """
    try:
        return text.encode(encoding, ASCII_SIGNS).decode(encoding)
    except LookupError:  # an encoding that Python doesn't know, which nothing is written in
        return text


def _ascii_signs(error: UnicodeError) -> tuple[str, int]:
    """For `codecs`: what takes the place of letters that can't be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(map(_ascii_sign, lacking)), error.end


def _ascii_sign(letter: str) -> str:
    if letter in _SIGNS:
        return _SIGNS[letter]
    if "\u2500" <= letter <= "\u257f":  # corners and crossings of boxes
        return "+"
    return letter.encode("ascii", "backslashreplace").decode()


codecs.register_error(ASCII_SIGNS, _ascii_signs)
