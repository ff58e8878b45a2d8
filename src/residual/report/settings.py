"""Settings as lines of text, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby

from residual.settings import OWN, PAPER, PAPER_IS, Listed

_WIDTH, _INDENT = 80, "    "


def settings_lines(rows: Sequence[Listed]) -> str:
    """Each setting with its value, where that is from, what it means and takes; a part for each class.

    Args:
        rows: in the order in which they are shown.

    Example:
        >>> from residual.heads import DescribeSettings
        >>> from residual.settings import listed
        >>> print(settings_lines(listed(DescribeSettings)[1:2]))
        DescribeSettings
        <BLANKLINE>
          top = 10
            so many of the best are described where none is named; all if there are
            fewer. Takes a whole number, at least 1.
    """
    parts = []
    for name, of_one in groupby(rows, lambda row: row.name.partition(".")[0]):
        parts.append("\n\n".join([name, *map(_lines, of_one)]))
    if any(PAPER in (row.place, row.source) for row in rows):
        parts.append(textwrap.fill(f"The paper: {PAPER_IS}. Without brackets: this library's own.", _WIDTH))
    return "\n\n".join(parts)


def settings_result(rows: Sequence[Listed]) -> list[dict[str, object]]:
    """The same for JSON."""
    return [
        {
            "name": row.name, "value": row.value, "from": row.place, "default": row.default,
            "default_from": row.source, "takes": row.takes, "about": row.about, "counts": row.counts,
        }
        for row in rows
    ]  # fmt: skip


def _lines(row: Listed) -> str:
    value = f"  {row.name.partition('.')[2]} = {row.value!r}"
    place = "" if row.place == OWN else f"[{row.place}]"
    more = f" Counts {row.counts}." if row.counts else ""
    was = "" if row.value == row.default else f" The default is {row.default!r} ({row.source})."
    first = textwrap.wrap(f"{value}  {place}".rstrip(), _WIDTH, subsequent_indent=_INDENT)
    text = f"{row.about}. Takes {row.takes}.{more}{was}"
    return "\n".join([*first, textwrap.indent(textwrap.fill(text, _WIDTH - len(_INDENT)), _INDENT)])
