"""Self-contained HTML pages: what all share, that of a run (table, weights, pictures), and the suite's."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from residual.adapters.adapter import Adapter
from residual.adapters.inspection import strongest_components, unit_gains
from residual.adapters.scores import compute_scores
from residual.data import ImageDataset
from residual.errors import printable
from residual.files import write_text
from residual.report.lambdas import component_title
from residual.report.sentences import intervals_note, seeds_note, sentence
from residual.report.tables import (
    METHOD_NAMES,
    run_rows,
    suite_headings,
    suite_markdown,
    suite_rows,
)
from residual.store.base import Store
from residual.text.classifier import ZeroShotClassifier

PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("residual.report"),
    autoescape=True,
    finalize=lambda value: printable(value) if type(value) is str else value,  # not of what is markup
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def picture_uri(image: Image.Image, side: int = 64) -> str:
    """The picture as a data URI, at most `side` pixels a side."""
    image = image.convert("RGB")
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


PICTURES = 8  # at each end of a component


def write_run_page(
    path: str | Path,
    summary: dict[str, Any],
    adapters: Mapping[str, Adapter],
    store: Store,
    dataset: ImageDataset,
    classifier: ZeroShotClassifier,
    components: int = 5,
) -> Path:
    """Write the page of one run; where there are several seeds, weights and pictures are of the first.

    Args:
        path: of the HTML file; nothing else is written, pictures are inside it.
        summary: what came out, as `residual.workflows.run_tasks` tells it.
        adapters: one a method.
        store: coordinates of the train pictures.
        dataset: those pictures.
        classifier: of their classes.
        components: how many of the strongest components to show.

    Raises:
        ResidualError: the place can't be written to.
    """
    weighted = {method: each for method, each in adapters.items() if each.of_units}
    with_components = [method for method, each in weighted.items() if each.of_components]
    last = next(reversed(with_components), None)  # it has the most weights
    rows = []
    if last is not None:
        rows = _component_rows(weighted[last], store, dataset, classifier, components)
    page = PAGES.get_template("run.html").render(
        summary=summary,
        sentence=sentence(summary),
        intervals=intervals_note(summary),
        recipes=list(dict.fromkeys(summary.get("recipe", {}).values())),
        rows=run_rows(summary),
        panels=[
            {"title": METHOD_NAMES[method], "grid": gain_grid(unit_gains(adapter, store.units))}
            for method, adapter in weighted.items()
        ],
        strongest="" if last is None else METHOD_NAMES[last],
        legend=[(f"{gain:g}", *gain_colour(gain)) for gain in (0.25, 0.5, 1.0, 2.0, 4.0)],
        components=rows,
        seconds={stage: f"{value:.1f}" for stage, value in summary["seconds"].items()},
    )
    write_text(path, page)
    return Path(path)


def write_suite_page(folder: str | Path, summaries: Sequence[dict[str, Any]]) -> None:
    """Write `index.html`, a table that leads to the pages of the runs, and `table.md`, the same table."""
    page = PAGES.get_template("suite.html").render(
        headings=suite_headings(summaries),
        rows=suite_rows(summaries),
        encoder=summaries[0]["encoder"],
        summaries=summaries,
        seeds_note=seeds_note(summaries[0]),
    )
    write_text(Path(folder) / "index.html", page)
    write_text(Path(folder) / "table.md", suite_markdown(summaries))


def gain_grid(gains: pd.DataFrame) -> dict[str, Any]:
    """Layers down, heads and then the MLP across: what each cell says, and its colours."""
    heads = gains[gains["kind"] == "head"]
    mlps = gains[gains["kind"] == "mlp"]
    columns = [f"head {head}" for head in range(int(heads["head"].max()) + 1)] + (
        ["MLP"] if len(mlps) else []
    )
    rows = []
    for layer in sorted(heads["layer"].unique()):
        cells = [*heads[heads["layer"] == layer].sort_values("head").itertuples()]
        cells += [*mlps[mlps["layer"] == layer].itertuples()]
        rows.append((f"layer {layer}", [_cell(cell) for cell in cells]))
    return {"columns": columns, "rows": rows}


def _cell(unit: Any) -> dict[str, Any]:
    ground, ink = gain_colour(unit.relative)
    return {"text": f"{unit.relative:.2f}", "ground": ground, "ink": ink, "weights": unit.weights}


def gain_colour(gain: float) -> tuple[str, str]:
    """Ground and ink for a gain: blue below 1, white at 1, orange above; even steps of the logarithm.

    Blue and orange keep apart for colour-blind eyes.
    """
    at = max(-1.0, min(1.0, math.log2(max(gain, 1e-6)) / 2))  # full colour at a quarter and at fourfold
    far = np.array((33, 102, 172) if at < 0 else (217, 95, 2))
    colour = np.array((255, 255, 255)) * (1 - abs(at)) + far * abs(at)
    return f"rgb({', '.join(str(round(part)) for part in colour)})", "#fff" if abs(at) > 0.6 else "#222"


def _component_rows(
    adapter: Adapter, store: Store, dataset: ImageDataset, classifier: ZeroShotClassifier, count: int
) -> list[dict[str, Any]]:
    """The strongest components, each with the train pictures at its two ends."""
    positions = {sample: k for k, sample in enumerate(dataset.sample_ids)}  # some may be left out
    scores = compute_scores(adapter, store).scores

    def picture(sample: int) -> tuple[str, str]:
        image, _ = dataset[positions[store.sample_ids[sample]]]
        return picture_uri(image), store.class_names[store.labels[sample]]

    rows = []
    for component in strongest_components(adapter, count):
        order = scores[:, component.position].argsort().tolist()
        k = min(PICTURES, len(order) // 2)
        low, high = component.classes(classifier)
        rows.append(
            {
                "title": component_title(component, store.units),
                "weight": f"{component.weight:+.2f}",
                "explained": f"{100 * component.explained:.0f} %",
                "low_classes": low,
                "high_classes": high,
                "low": [picture(sample) for sample in order[:k]],
                "high": [picture(sample) for sample in order[len(order) - k :][::-1]],
            }
        )
    return rows
