"""The shapes of units as tables: for the terminal, for JSON, for Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from residual.errors import printable
from residual.report.layout import Table
from residual.spectral.geometry import MEASURES
from residual.spectral.similarity import SIMILARITIES

_SHORT = {
    "linear_dimension": "linear",
    "two_nn": "TwoNN",
    "linear_over_two_nn": "ratio",
    "first_explained_variance_ratio": "first EVR",
    "participation_ratio": "PR",
    "spectral_cosine": "spectral cosine",
    "mean_principal_angle": "mean angle",
    "mean_cosine": "cosine of means",
    "mean_distance": "distance of means",
}
_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "|": r"$\mid$", "σ": r"$\sigma$", "–": "--"} | {
    sign: f"\\{sign}" for sign in "%&_#${}"
}
_NAMES = {"emb": "embedding", "mlp": "MLP", "head": "heads"}


def layer_means(table: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Mean and standard deviation of each column over the units of one kind in one layer.

    Columns of the result: `kind`, `layer`, and for each column itself and `…_deviation`, NaN for one unit.
    """
    groups = table.groupby(["kind", "layer"], sort=False, dropna=False)[list(columns)]
    return groups.mean().join(groups.std().add_suffix("_deviation")).reset_index()


def layers_table(table: pd.DataFrame, title: str, similar: bool = False) -> Table:
    """A row a layer of one kind of unit: mean and standard deviation over its heads, `0.345 (SD 0.05)`.

    Args:
        table: from `unit_geometry`, or from `compare_bases` with the columns of units.
        title: what it is of.
        similar: it is the latter.
    """
    columns = [name for name in (SIMILARITIES if similar else MEASURES) if name in _SHORT]
    shown = Table(title)
    shown.add_column("units")
    shown.add_column("layer", justify="right")
    for name in columns:
        shown.add_column(_SHORT[name], justify="right")
    for _, row in layer_means(table, columns).iterrows():
        layer = "" if pd.isna(row["layer"]) else str(row["layer"])
        shown.add_row(_NAMES[row["kind"]], layer, *(_spread(row, name) for name in columns))
    return shown


def _spread(row: pd.Series, name: str) -> str:
    if pd.isna(row[name]):
        return "–"
    deviation = row[f"{name}_deviation"]
    if pd.isna(deviation):
        return f"{row[name]:.3g}"
    return f"{row[name]:.3g} (SD {deviation:.{1 if deviation < 9.5 else 3}g})"


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One entry a row, for JSON: what is missing is None."""
    whole = table.astype(object)
    return [
        {str(name): value for name, value in row.items()}
        for row in whole.where(whole.notna(), None).to_dict("records")
    ]


def datasets_markdown(rows: Mapping[str, Mapping[str, Any]], headings: Sequence[str], title: str) -> str:
    """A Markdown table under a title: a row a dataset, and one number under each heading."""
    return markdown_table(["dataset", *headings], _lines(rows, headings), title)


def datasets_latex(rows: Mapping[str, Mapping[str, Any]], headings: Sequence[str], title: str) -> str:
    """The same for LaTeX, with booktabs; the title is its caption."""
    return latex_table(["dataset", *headings], _lines(rows, headings), title)


def markdown_table(headings: Sequence[str], lines: Sequence[Sequence[str]], title: str = "") -> str:
    """Lines as a Markdown table, under a title if there is one; the first column is left, others right."""
    whole = [headings, ["---", *["---:"] * (len(headings) - 1)], *lines]
    rows_of_text = (" | ".join(printable(cell).replace("|", r"\|") for cell in line) for line in whole)
    return (f"{printable(title)}\n\n" if title else "") + "".join(f"| {line} |\n" for line in rows_of_text)


def tables_of_markdown(text: str) -> list[Table]:
    """What `markdown_table` wrote, one table after another, for a terminal.

    Example:
        >>> (table,) = tables_of_markdown(markdown_table(["dataset", "PR"], [["letters", "4.9"]], "picto"))
        >>> print(table)
        picto
        dataset   PR
        letters  4.9
    """
    tables: list[Table] = []
    title, rows = "", 0
    for line in text.split("\n"):
        if not line.startswith("| "):
            title, rows = line or title, 0
            continue
        cells = [cell.replace(r"\|", "|") for cell in line[2:-2].split(" | ")]
        if rows == 0:
            tables.append(Table(title))
            for place, heading in enumerate(cells):
                tables[-1].add_column(heading, justify="right" if place else "left")
            title = ""
        elif rows > 1:  # the second is the rule
            tables[-1].add_row(*cells)
        rows += 1
    return tables


def latex_table(headings: Sequence[str], lines: Sequence[Sequence[str]], title: str) -> str:
    """The same for LaTeX, with booktabs; the title is its caption."""
    head, *rest = (" & ".join(map(_escaped, line)) + r" \\" for line in [headings, *lines])
    body = "\n".join([r"\toprule", head, r"\midrule", *rest, r"\bottomrule"])
    begin = f"\\begin{{table}}\n\\centering\n\\caption{{{_escaped(title)}}}\n"
    right = "r" * (len(headings) - 1)
    return f"{begin}\\begin{{tabular}}{{l{right}}}\n{body}\n\\end{{tabular}}\n\\end{{table}}\n"


def _lines(rows: Mapping[str, Mapping[str, Any]], headings: Sequence[str]) -> list[list[str]]:
    return [[name, *(_number(values[heading]) for heading in headings)] for name, values in rows.items()]


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in printable(text))


def _number(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3g}"
    return f"{value}"
