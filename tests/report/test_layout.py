"""Tables as they are printed: nothing is cut in narrow terminals, in files, or where letters are lacking."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from residual.report.layout import Table, wrapped


def methods(names=("zero-shot", "ResiDual*", "a map of the output with a long name")) -> Table:
    table = Table("picto on letters, 1,300 unseen pictures")
    table.add_column("method")
    for heading in ("accuracy", "weights trained", "seconds to fit"):
        table.add_column(heading, justify="right")
    for name in names:
        table.add_row(name, "98.5 ± 0.2 % (97.5 to 99.1)", "1,234,567", "0.1")
    table.note = "A note."
    return table


def test_as_wide_as_it_needs():
    title, heading, *rows, note = str(methods()).splitlines()
    assert (title, note) == ("picto on letters, 1,300 unseen pictures", "A note.")
    assert heading.split() == ["method", "accuracy", "weights", "trained", "seconds", "to", "fit"]
    assert [row.index("98.5") for row in rows] == [38, 38, 38]
    assert len({len(row) for row in rows}) == 1


@pytest.mark.parametrize("width", [80, 60, 40, 26])
def test_in_a_terminal_no_number_is_cut_and_no_column_dropped(width):
    lines = methods().lines(width)
    assert max(map(cell_len, lines)) <= width
    shown = "\n".join(lines)
    for number, count in (("98.5 ± 0.2 %", 3), ("(97.5 to 99.1)", 3), ("1,234,567", 3), ("0.1", 3)):
        assert shown.count(number) == count
    for word in ("accuracy", "weights", "trained", "seconds", "fit"):
        assert word in shown
    assert lines[-1] == "A note."
    assert (width >= 60) == ("98.5 ± 0.2 % (97.5 to 99.1)" in shown)


def test_wide_letters_keep_columns_in_line():
    """Chinese ones and emoji take two columns of a terminal, marks of Arabic none."""
    names = ("熊猫", "🐼", "\u0628\u064e\u0627\u0628", "panda")
    rows = methods(names).lines()[2:-1]
    assert len({cell_len(row) for row in rows}) == 1
    table = Table()
    table.add_row("classes", "熊猫貓咪狗子 " * 9)
    assert max(map(cell_len, table.lines(30))) <= 30
    assert "".join(table.lines(30)).count("熊猫貓咪狗子") == 9


def test_letters_that_an_encoding_lacks():
    """They are taken before widths are: ± has three signs."""
    of = {"ascii": ("+/-", r"\u718a"), "cp1252": ("±", r"\u718a"), "utf-8": ("±", "熊")}
    for encoding, (interval, name) in of.items():
        rows = methods(("熊", "zero-shot")).lines(encoding=encoding)[2:-1]
        assert all(f"98.5 {interval} 0.2 %" in row for row in rows)
        assert rows[0].startswith(name)
        assert len({cell_len(row) for row in rows}) == 1
        "\n".join(rows).encode(encoding)


def test_what_a_terminal_and_a_file_get():
    said = io.StringIO()
    Console(file=said, width=40, soft_wrap=True).print(methods())  # as the commands' is
    assert said.getvalue().splitlines() == methods().lines()
    said = io.StringIO()
    Console(file=said, width=40).print(methods())
    assert [line.rstrip() for line in said.getvalue().splitlines()] == methods().lines(40)
    said = io.StringIO()
    Console(file=said, width=40, force_terminal=True, color_system="standard").print(methods())
    assert said.getvalue().count("\x1b[1m") == 1 + 2 + 2  # the title, and the headings of two blocks
    table = Table()
    table.add_row("\x1b[31mred", "a\nb")
    assert table.lines() == [r"\x1b[31mred  a\nb"]


def test_words_are_broken_only_where_they_must_be():
    assert wrapped("folder:/a/long/path/of/pictures", 14) == ["folder:/a/", "long/path/of/", "pictures"]
    assert wrapped("x" * 9, 4) == ["xxxx", "xxxx", "x"]
    assert wrapped("  see x/y/z/a/b/c/d now", 9, broken=False) == ["  see", "  x/y/z/a/b/c/d", "  now"]


def test_columns_stand_closer_before_anything_is_wrapped_or_folded():
    table = Table()
    for heading in ("way", *"abcdefg"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    table.add_row("U|T in span", *["44.8±16.3"] * 7)
    assert [len(table.lines(width)) for width in (88, 81, 80)] == [2, 2, 3]
    assert table.lines(81)[1] == " ".join(["U|T in span", *["44.8±16.3"] * 7])
