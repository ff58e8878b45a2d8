"""Tables of experiment 3 beside its summary: overlaps between datasets, and what its studies found."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd

from residual.experiments.base import Page, Tables
from residual.heads.selections import jaccard_table, top_units
from residual.report.scoreboards import LABELS, scoreboard_cells

_TEXTS = 5  # of each, in a table
_EXPLAINED = ("explained", "needed")


def part_of(table: pd.DataFrame, part: str) -> pd.DataFrame:
    """The rows of one part, with its own columns."""
    rows = table[table["part"] == part].drop(columns="part").dropna(axis=1, how="all").reset_index(drop=True)
    # Beside parts that have none, whole numbers are floats.
    return rows.astype({name: int for name in ("unit", "heads") if name in rows})


def overlap_pages(tables: Tables, share: float) -> dict[str, list[Page]]:
    """`overlaps`: the Jaccard index of the best heads of every two datasets, for each encoder and each way
    that they are chosen.

    Args:
        tables: of experiment 3.
        share: of heads.
    """
    pages = []
    for encoder, rows in tables.items():
        chosen = {name: best_heads(table, share) for name, table in rows.items()}
        for way in [way for way in LABELS if len(rows) > 1 and all(way in own for own in chosen.values())]:
            found = jaccard_table({name: own[way] for name, own in chosen.items()})
            lines = [
                [name, *(f"{value:.2f}" for value in row)]
                for name, row in zip(rows, found.to_numpy(), strict=True)
            ]
            title = f"{encoder}: overlap of the best {share:.0%} of heads by {LABELS[way]}"
            pages.append(Page(title, ["dataset", *rows], lines))
    return {"overlaps": pages} if pages else {}


def best_heads(table: pd.DataFrame, share: float) -> dict[str, list[int]]:
    """By every score of a cell, the heads that are kept at a share."""
    scores, accuracy = part_of(table, "score"), part_of(table, "accuracy")
    kept = accuracy[accuracy["share"] == share]["heads"]
    ways = [way for way in LABELS if way in scores]
    return {way: top_units(scores[way], int(kept.iloc[0]), scores["unit"]) for way in ways}


def study_pages(tables: Tables) -> dict[str, list[Page]]:
    """`accuracy`, the whole scoreboard; and a file for each study that a cell holds."""
    pages: dict[str, list[Page]] = {}
    for encoder, rows in tables.items():
        parts = {name: set(table["part"]) for name, table in rows.items()}
        for study, page in _PAGES.items():
            own = {name: part_of(table, study) for name, table in rows.items() if study in parts[name]}
            for title, headings, lines in page(own) if own else ():
                pages.setdefault(study, []).append(Page(f"{encoder}{title}", headings, lines))
    return pages


def _selected(parts: dict[str, pd.DataFrame]) -> Iterator[Page]:
    headings = ["heads by", "heads", *_EXPLAINED, "mean square left", "cosine", "texts"]
    for name, table in parts.items():
        lines = []
        for way, own in table.groupby("way", sort=False):
            last = own.iloc[-1]
            numbers = (f"{last[key]:.3g}" for key in ("l2", "cosine"))
            lines.append([LABELS[str(way)], str(int(last["heads"])), *_explained(own), *numbers, _texts(own)])
        yield Page(f" on {name}: texts of the sum of the best heads, by SOMP", headings, lines)


def _adapted_heads(parts: dict[str, pd.DataFrame]) -> Iterator[Page]:
    for name, table in parts.items():
        lines = []
        for _, own in table.groupby("unit", sort=False):
            line = [f"{own['layer'].iloc[0]:.0f}.{own['head'].iloc[0]:.0f}"]
            for method in ("zero_shot", "residual"):
                of = own[own["name"] == method]
                line += [*_explained(of), _texts(of)] if len(of) else ["", "", ""]
            lines.append(line)
        headings = ["head", *_EXPLAINED, "before", *_EXPLAINED, "after ResiDual"]
        yield Page(f" on {name}: texts of heads, by SOMP", headings, lines)


def _mlps(parts: dict[str, pd.DataFrame]) -> Iterator[Page]:
    table = next(iter(parts.values()))  # of the reference: the same in every cell
    lines = [
        [f"{layer:.0f}", *_explained(own), _texts(own)] for layer, own in table.groupby("layer", sort=False)
    ]
    yield Page(": texts of MLPs on the reference, by SOMP", ["layer", *_EXPLAINED, "texts"], lines)


def _layers(parts: dict[str, pd.DataFrame]) -> Iterator[Page]:
    names = list(next(iter(parts.values()))["name"].drop_duplicates())
    for mode in ("zero", "mean"):
        lines = []
        for kept in names:
            found = (table[(table["mode"] == mode) & (table["name"] == kept)] for table in parts.values())
            lines.append([kept, *(f"{100 * own['accuracy'].iloc[0]:.1f}" for own in found)])
        yield Page(f": accuracy on test in per cent, {mode} ablation", ["kept", *parts], lines)


def _linear(parts: dict[str, pd.DataFrame]) -> Iterator[Page]:
    lines = []
    for name, table in parts.items():
        row = table.iloc[0]
        figures = (f"{100 * row[key]:.1f}" for key in ("zero_shot", "accuracy", "val_accuracy"))
        lines.append([name, *figures, f"{row['decay']:g}"])
    headings = ["dataset", "zero-shot", "linear", "on val", "decay"]
    yield Page(": a linear classifier of the output, accuracy on test in per cent", headings, lines)


def _scoreboard(others: str) -> Callable[[dict[str, pd.DataFrame]], Iterator[Page]]:
    def pages(parts: dict[str, pd.DataFrame]) -> Iterator[Page]:
        for name, table in parts.items():
            headings, lines = scoreboard_cells(table)
            yield Page(f" on {name}: accuracy with all other units at {others}, per cent", headings, lines)

    return pages


_PAGES: dict[str, Callable[[dict[str, pd.DataFrame]], Iterator[Page]]] = {
    "accuracy": _scoreboard("zero"),
    "selected": _selected,
    "adapted_heads": _adapted_heads,
    "mlps": _mlps,
    "layers": _layers,
    "linear": _linear,
    "mean": _scoreboard("their means"),
}


def _explained(rows: pd.DataFrame) -> tuple[str, str]:
    """What all texts explain together, and what they have to exceed; nothing in cells of earlier versions."""
    return f"{rows['explained_variance'].iloc[-1]:.3g}", f"{_bound(rows):.3g}" if _bound(rows) else ""


def _texts(rows: pd.DataFrame) -> str:
    """The first of them, where they are a name."""
    if rows["explained_variance"].iloc[-1] <= _bound(rows):
        return "no name"
    return ", ".join(rows.sort_values("order")["text"].head(_TEXTS))


def _bound(rows: pd.DataFrame) -> float:
    return float(rows["bound"].iloc[-1]) if "bound" in rows else 0.0
