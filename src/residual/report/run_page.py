"""The page of one run: which pictures changed, class by class, then each head and MLP that is weighted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from residual.adapters.adapter import Adapter
from residual.adapters.inspection import strongest_components, unit_gains
from residual.data import ImageDataset
from residual.encoders.encoder import Encoder
from residual.files import write_text
from residual.heads.descriptions import UnitTexts
from residual.outputs import check_file
from residual.products import RUN_PAGE
from residual.progress import Progress
from residual.report.changes import Change, Changes
from residual.report.gains import STEPS, gain_colours, gain_grid, unit_anchor
from residual.report.lambdas import component_title
from residual.report.pages import PAGES, Thumbnails
from residual.report.sentences import intervals_note, parts_note, sentence
from residual.report.tables import METHOD_NAMES, run_rows
from residual.report.unit_sections import unit_sections
from residual.store.base import Store
from residual.text.classifier import ZeroShotClassifier

_HEADINGS = ("method", "accuracy", "weights trained", "wrong to right", "right to wrong")
_TILES = 24  # pictures that changed, each way
_SIDE = 96  # of these
_ENDS = 12  # classes from the top and from the bottom
_CLASSES = 40  # that changed, up to which they are all in sight
_NAMED = 5  # components in the list of the strongest


def write_run_page(
    path: str | Path,
    summary: dict[str, Any],
    adapters: Mapping[str, Adapter],
    changes: Mapping[str, Changes],
    store: Store,
    datasets: Mapping[str, ImageDataset],
    classifier: ZeroShotClassifier,
    texts: Mapping[int, UnitTexts] | None = None,
    overwrite: bool = False,
    *,
    encoder: Encoder | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the page of one run; where there are several seeds, weights and pictures are of the first.

    It leads with the method of the best accuracy. Thumbnails are inside the page, as many as keep it under
    3 MB; where some aren't shown it says how many.

    Args:
        path: of the HTML file; nothing else is written.
        summary: what came out, as `residual.workflows.run_tasks` tells it.
        adapters: one a method.
        changes: what each of them changed on the test pictures.
        store: coordinates of the train pictures.
        datasets: the pictures, of "train" and of "test".
        classifier: of their classes.
        texts: of units, see `residual.heads.unit_texts`.
        overwrite: whether an earlier page of a run may be replaced.
        encoder: that of the store: with it, pictures at the ends of heads' components have maps.
        progress: told of the pictures that are mapped.

    Raises:
        ExistingError, ForeignError: one is there already, see `overwrite`; or something else is.
        ResidualError: the place can't be written to.
    """
    path = check_file(path, RUN_PAGE, overwrite)
    accuracy = summary["accuracy"]
    best = max(reversed(list(changes)), key=lambda method: accuracy[method])
    weighted = {method: each for method, each in adapters.items() if each.of_units}
    gains = {
        method: unit_gains(adapter, store.units).assign(
            turned=[bool((unit.weights < 0).all()) for unit in adapter.unit_weights()]
        )
        for method, adapter in weighted.items()
    }
    deep = [method for method in weighted if weighted[method].of_components]
    shown = best if best in deep else max(reversed(deep), key=lambda method: accuracy[method], default=None)
    sections = unit_sections(
        {METHOD_NAMES[method]: table for method, table in gains.items()},
        None if shown is None else weighted[shown],
        store,
        datasets["train"],
        classifier,
        texts,
        encoder,
        progress,
    )
    strongest = []
    for component in strongest_components(weighted[shown], _NAMED) if shown else ():
        unit = store.units.iloc[component.unit]
        anchor = unit_anchor(unit["kind"], int(unit["layer"]), unit["head"])
        strongest.append((component_title(component, store.units), anchor, f"{component.weight:+.2f}"))
    page = PAGES.get_template("run.html").render(
        summary=summary,
        sentence=sentence(summary),
        intervals=intervals_note(summary),
        recipes=list(dict.fromkeys(summary.get("recipe", {}).values())),
        headings=_HEADINGS,
        rows=_rows(summary, changes),
        best=METHOD_NAMES[best],
        change=changes[best],
        tiles=_tiles(changes[best], datasets["test"]),
        classes=_classes(changes[best]),
        panels=[{"title": METHOD_NAMES[method], "grid": gain_grid(table)} for method, table in gains.items()],
        legend=[(f"{gain:g}", gain_colours(gain)) for gain in STEPS],
        shown=shown and METHOD_NAMES[shown],
        strongest=strongest,
        sections=sections,
        texts=texts is not None,
        parts=parts_note(summary),
        seconds=_seconds(summary),
    )
    write_text(path, page)
    return path


def _rows(summary: dict[str, Any], changes: Mapping[str, Changes]) -> list[tuple[str, ...]]:
    """Those of the table, with how many pictures each method put right and wrong in place of seconds."""
    counts = [(f"{len(each.fixed):,}", f"{len(each.broken):,}") for each in changes.values()]
    return [(*row[:3], *count) for row, count in zip(run_rows(summary), [("", ""), *counts], strict=True)]


def _seconds(summary: dict[str, Any]) -> dict[str, str]:
    """Of each stage, and of each method's fits."""
    names = {f"fit_{method}": name for method, name in METHOD_NAMES.items()}
    return {
        names.get(stage, stage): f"{value:.1f}"
        for stage, value in summary["seconds"].items()
        if stage != "fit"  # the sum of the methods'
    }


def _tiles(changes: Changes, dataset: ImageDataset) -> list[dict[str, Any]]:
    """Pictures that went from wrong to right, and from right to wrong: of many, some evenly among them."""
    pictures = Thumbnails(dataset, _SIDE)
    return [
        {
            "title": title,
            "kind": kind,
            "of": len(every),
            "pictures": [(each, pictures[each.sample_id]) for each in _few(every)],
        }
        for title, kind, every in (
            ("From wrong to right", "good", changes.fixed),
            ("From right to wrong", "bad", changes.broken),
        )
    ]


def _few(every: Sequence[Change]) -> list[Change]:
    count = min(len(every), _TILES)
    return [every[place * len(every) // count] for place in range(count)]


def _classes(changes: Changes) -> dict[str, Any]:
    """Each class's accuracy before and after, what gained most first.

    Of few classes all are in sight; of more those that changed, and of many of these the ends.
    """
    table = changes.by_class
    gained = (table["after"] - table["before"]).round(9)
    table = table.assign(change=gained).sort_values(["change", "after"], ascending=False, kind="stable")
    rows = [
        {
            "name": row["class_name"],
            "pictures": row["pictures"],
            "before": f"{100 * row['before']:.1f}",
            "after": f"{100 * row['after']:.1f}",
            "change": f"{100 * row['change']:+.1f}" if row["change"] else "0.0",
        }
        for row in table.to_dict("records")
    ]
    changed = [row for row in rows if row["change"] != "0.0"]
    if len(rows) <= 2 * _ENDS:
        shown = [("", rows)]
    elif len(changed) <= _CLASSES:
        shown = [("", changed)] if changed else []
    else:
        gained_most, gained_least = f"The {_ENDS} that gained most", f"The {_ENDS} that gained least"
        shown = [(gained_most, changed[:_ENDS]), (gained_least, changed[-_ENDS:])]
    return {
        "rows": rows,
        "shown": shown,
        "same": len(rows) - len(changed),
        "missing": len(changes.class_names) - len(rows),
        "chance": f"{100 / len(changes.class_names):.2f}",
    }
