"""Tables for terminals and files: as wide as they need where nothing limits them, and otherwise wrapped at
words or folded into blocks of columns. No number is ever cut, and no column dropped.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

from residual.errors import printable
from residual.texts import in_encoding

_GAPS = 2, 1  # columns between two; where a table is too wide by a little, the lesser
_NARROWEST = 14  # columns that a text is broken into, where a word of it is longer
_WORDS = re.compile(r"\S+\s*")
_NUMBERS = re.compile(r".+?(?:\s+(?=\()|$)")  # "98.5 ± 0.2 % (97.5 to 99.1)" may be broken before its bracket
_PARTS = re.compile(r".+?(?:[-_/:.,;@=]+|$)")  # of a word, as of a path


@dataclass
class _Column:
    heading: str
    right: bool
    cells: list[str] = field(default_factory=list)

    @property
    def of_cells(self) -> int:
        """Columns of the terminal that its cells take unwrapped."""
        return max(map(cell_len, self.cells), default=0)

    @property
    def most(self) -> int:
        """Those that it takes unwrapped."""
        return max(cell_len(self.heading), self.of_cells)

    @property
    def least(self) -> int:
        """Those that it takes at least."""
        words = self.words if self.right else _WORDS
        parts = (each.strip() for cell in self.cells for each in words.findall(cell))
        longest = max(map(cell_len, parts), default=0)
        headings = max(map(cell_len, self.heading.split()), default=0)
        return max(longest if self.right else min(longest, _NARROWEST), min(headings, self.most))

    @property
    def words(self) -> re.Pattern[str]:
        """What stays together."""
        return _NUMBERS if self.right else _WORDS

    def fitted(self, text: str, width: int) -> str:
        """One line of a cell, as wide as the column."""
        space = " " * max(0, width - cell_len(text))
        return space + text if self.right else text + space


class Table:
    """A table of texts, to be printed by a console of rich or as a string.

    Args:
        title: the line above it.

    Example:
        >>> table = Table("two methods")
        >>> table.add_column("method")
        >>> table.add_column("accuracy", justify="right")
        >>> table.add_row("zero-shot", "96.5 %")
        >>> print(table)
        two methods
        method     accuracy
        zero-shot    96.5 %
    """

    def __init__(self, title: str = ""):
        self.title, self.note = title, ""
        self._columns: list[_Column] = []
        self._rows: list[tuple[str, ...] | None] = []  # None for an empty line

    def add_column(self, heading: str, justify: str = "left") -> None:
        """One more column: of texts, that can be wrapped at words, or, to the right, of numbers."""
        self._columns.append(_Column(heading, justify == "right"))

    def add_row(self, *cells: str) -> None:
        """One more row; a table of facts has no columns with headings."""
        self._rows.append(cells)

    def add_section(self) -> None:
        """An empty line before what follows."""
        self._rows.append(None)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Generator[Text]:
        """On a terminal as wide as that, and with its headings in bold; in files that nothing is wrapped or
        cropped for (`soft_wrap`), as wide as it needs."""
        free = options.overflow == "ignore" and not console.is_terminal
        width = None if free else options.max_width
        title, body, note = self._parts(width, console.encoding)
        for lines in (title, *body, note):
            for line, bold in lines:
                yield Text(line, style="bold" if bold else "", no_wrap=True, overflow="ignore")

    def lines(self, width: int | None = None, encoding: str = "utf-8") -> list[str]:
        """Its lines.

        Args:
            width: columns of the terminal; None for as many as it needs.
            encoding: of where they go; what it lacks is told by other signs.
        """
        title, body, note = self._parts(width, encoding)
        return [line for lines in (title, *body, note) for line, _ in lines]

    def _parts(
        self, width: int | None, encoding: str
    ) -> tuple[list[tuple[str, bool]], list[list[tuple[str, bool]]], list[tuple[str, bool]]]:
        def shown(text: str) -> str:
            return in_encoding(printable(text), encoding)

        columns = [_Column(shown(each.heading), each.right) for each in self._columns] or [
            _Column("", False) for _ in max(filter(None, self._rows), key=len, default=())
        ]
        for row in filter(None, self._rows):
            for column, cell in zip(columns, row, strict=True):
                column.cells.append(shown(cell))
        gap = _gap(columns, width)
        body: list[list[tuple[str, bool]]] = []
        for block in _blocks(columns, width, gap):
            if body:
                body.append([("", False)])
            body.append(self._block(block, width, gap))
        around = (filter(None, map(shown, text.split("\n"))) for text in (self.title, self.note))
        title, note = (
            [part for line in lines for part in (wrapped(line, width) if width else [line])]
            for lines in around
        )
        return [(line, True) for line in title], body, [(line, False) for line in note]

    def _block(self, columns: Sequence[_Column], width: int | None, gap: int) -> list[tuple[str, bool]]:
        widths = _widths(columns, width, gap)
        lines: list[tuple[str, bool]] = []
        if self._columns:
            headings = [wrapped(column.heading, wide) for column, wide in zip(columns, widths, strict=True)]
            lines += [(line, True) for line in _side_by_side(columns, widths, headings, gap)]
        place = 0
        for row in self._rows:
            if row is None:
                lines.append(("", False))
                continue
            cells = [
                wrapped(column.cells[place], wide, column.words, broken=not column.right)
                for column, wide in zip(columns, widths, strict=True)
            ]
            lines += [(line, False) for line in _side_by_side(columns, widths, cells, gap)]
            place += 1
        return lines


def pairs_table(pairs: Mapping[str, str]) -> Table:
    """Names, and behind each what there is to tell of it."""
    table = Table()
    for name, told in pairs.items():
        table.add_row(name, told)
    return table


def wrapped(text: str, width: int, words: re.Pattern[str] = _WORDS, broken: bool = True) -> list[str]:
    """A line as several of a width, in columns of a terminal; one at least.

    Args:
        text: without line breaks.
        width: of the lines.
        words: what stays together, with the space behind it.
        broken: whether a word that is longer than a line is broken: behind signs in it, if it has some.

    Example:
        >>> wrapped("one two three", 8)
        ['one two', 'three']
    """
    if cell_len(text) <= width:
        return [text]
    indent = text[: len(text) - len(text.lstrip())]
    lines = [indent]
    for word in words.findall(text.lstrip()):
        for part in _broken(word, width) if broken else [word]:
            if lines[-1].strip() and cell_len(lines[-1] + part.rstrip()) > width:
                lines.append(indent)
            lines[-1] += part
    return [line.rstrip() for line in lines]


def _broken(word: str, width: int) -> list[str]:
    """A word in parts that fit on a line."""
    if cell_len(word.rstrip()) <= width:
        return [word]
    parts: list[str] = []
    for part in _PARTS.findall(word):
        if cell_len(part.rstrip()) <= width:
            parts.append(part)
            continue
        parts.append("")
        for letter in part:
            if parts[-1] and cell_len((parts[-1] + letter).rstrip()) > width:
                parts.append("")
            parts[-1] += letter
    return parts


def _gap(columns: Sequence[_Column], width: int | None) -> int:
    """What is left between two: less before anything is wrapped, and before anything is folded."""
    if width is not None:
        for needed in (sum(column.most for column in columns), sum(column.least for column in columns)):
            for gap in _GAPS:
                if needed + gap * (len(columns) - 1) <= width:
                    return gap
    return _GAPS[0]


def _blocks(columns: Sequence[_Column], width: int | None, gap: int) -> list[Sequence[_Column]]:
    """Columns that fit beside each other, each block with the first column in front."""
    if width is None or len(columns) < 3 or _taken(columns, gap) <= width:
        return [columns]
    key, *others = columns
    blocks: list[list[_Column]] = []
    for column in others:
        if not blocks or _taken([*blocks[-1], column], gap) > width:
            blocks.append([key])
        blocks[-1].append(column)
    return list(blocks)


def _taken(columns: Sequence[_Column], gap: int) -> int:
    return sum(column.least for column in columns) + gap * (len(columns) - 1)


def _widths(columns: Sequence[_Column], width: int | None, gap: int) -> list[int]:
    """What each column gets: all that it needs, or its least and an equal part of what is left over, for
    numbers first, then for other cells, then for headings.
    """
    if width is None:
        return [column.most for column in columns]
    spare, widths = width - _taken(columns, gap), [column.least for column in columns]
    wholes = [max(column.least, column.of_cells) for column in columns]
    numbers = [whole if column.right else column.least for whole, column in zip(wholes, columns, strict=True)]
    for wanted in (numbers, wholes, [column.most for column in columns]):
        wishes = sorted(range(len(columns)), key=lambda k: wanted[k] - widths[k])
        for place, k in enumerate(wishes):
            given = max(0, min(wanted[k] - widths[k], spare // (len(wishes) - place)))
            spare, widths[k] = spare - given, widths[k] + given
    return widths


def _side_by_side(
    columns: Sequence[_Column], widths: Sequence[int], cells: Sequence[Sequence[str]], gap: int
) -> list[str]:
    lines = []
    for k in range(max(map(len, cells))):
        parts = [
            column.fitted(cell[k] if k < len(cell) else "", width)
            for column, width, cell in zip(columns, widths, cells, strict=True)
        ]
        lines.append((gap * " ").join(parts).rstrip())
    return lines
