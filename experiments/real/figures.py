"""Figures of what run.py found, from its real.json alone.

python experiments/real/figures.py benchmarks/results/real.json docs/figures
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from residual.intervals import mean_and_interval
from residual.report.accuracies import shots_figure
from residual.report.figures import draw as save_figure
from residual.report.figures import new_figure, title_of
from residual.report.scoreboards import scoreboard_figure
from residual.report.tables import METHOD_NAMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED = "DINOv2-small on CIFAR-10"
# What is trained: the encoder and classifier frozen; the classifier too; all weights of the encoder.
FROZEN, CLASSIFIER, WHOLE = "the classifier frozen", "a classifier trained", "the encoder trained"
COLOURS = {FROZEN: "#0072b2", CLASSIFIER: "#d55e00", WHOLE: "#000000"}
MARKERS = {FROZEN: "o", CLASSIFIER: "s", WHOLE: "D"}
LIMITS = {
    "residual, means kept, from 1": ("ResiDual, means kept, from 1", FROZEN),
    "residual, classifier alone": ("classifier alone", CLASSIFIER),
    "residual, classifier first, then λ": ("classifier first, then ResiDual", CLASSIFIER),
    "residual, classifier and λ together": ("ResiDual and classifier together", CLASSIFIER),
    "output": ("probe of the output", CLASSIFIER),
    "all heads and MLPs": ("probe of all heads and MLPs", CLASSIFIER),
}


def draw(found: dict[str, Any], folder: Path) -> list[Path]:
    """Those of the steps that were taken."""
    return [path for name, figure in figures_of(found) for path in save_figure(figure, folder, name)]


def figures_of(found: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    if methods := found.get("experiment 4"):
        rows = accuracies(methods)
        yield "real-accuracy", ladder(rows, found.get("limits", []))
        if rows["shots"].any():
            yield "real-few-shot", shots_figure(rows, f"{NAMED}: accuracy on test by pictures of each class")
    if any(row["measure"] == "probe" for row in found.get("limits", [])):
        yield "real-layers", layers(found["limits"])
    if heads := found.get("experiment 3"):
        rows = pd.DataFrame(heads["details"]["cifar10"])
        yield "real-heads", scoreboard_figure(rows, f"{NAMED}: heads chosen on val, tested on test")


def accuracies(experiment: dict[str, Any]) -> pd.DataFrame:
    frame = pd.DataFrame(experiment["details"]["accuracies"])
    return frame.assign(interval=frame["interval"].astype(float))


def ladder(methods: pd.DataFrame, limits: list[dict[str, Any]]) -> Figure:
    """Accuracy across, a line each, from the lowest up; what is trained by colour and marker."""
    rows = []
    for _, row in methods[methods["shots"] == 0].iterrows():
        label = "class means" if row["method"] == "zero_shot" else METHOD_NAMES[row["method"]]
        kind = WHOLE if row["method"] == "fine_tuning" else FROZEN
        rows.append((row["accuracy"], row["interval"], label, kind))
    for row in limits:
        if row["pooling"] == "own" and row["what"] in LIMITS:
            rows.append((*mean_and_interval(row["accuracy"]), *LIMITS[row["what"]]))
    rows.sort(key=lambda row: row[0])
    figure = new_figure(6.0, 0.38 * len(rows) + 1.4)
    axes = figure.subplots()
    for kind, colour in COLOURS.items():
        own = [(place, row) for place, row in enumerate(rows) if row[3] == kind]
        if own:
            axes.errorbar(
                [row[0] for _, row in own], [place for place, _ in own],
                xerr=[0 if row[1] is None or row[1] != row[1] else row[1] for _, row in own], linestyle="",
                marker=MARKERS[kind], color=colour, capsize=2, label=kind,
            )  # fmt: skip
    for place, row in enumerate(rows):
        axes.annotate(
            f"{100 * row[0]:.1f}",
            (row[0], place),
            (0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(rows)), [row[2] for row in rows])
    axes.set_xlabel("accuracy on test")
    axes.margins(y=0.06)
    low = min(row[0] for row in rows)
    axes.set_xlim(max(0, low - 0.1), 1)
    axes.grid(axis="x", color="#eeeeee")
    figure.legend(loc="outside lower center", ncols=len(COLOURS), frameon=False)
    title_of(figure, f"{NAMED}: what is trained")
    return figure


def layers(limits: list[dict[str, Any]]) -> Figure:
    """Probes of the stream by layer, a line a pooling."""
    figure = new_figure(6.0, 4.2)
    axes = figure.subplots()
    looks = {"own": ("class token", "#0072b2", "o"), "avg": ("mean of patches", "#d55e00", "s")}
    for pooling, (label, colour, marker) in looks.items():
        found = {row["what"]: row["accuracy"][0] for row in limits if row["pooling"] == pooling}
        by_layer = {
            int(name.split()[-1]): value for name, value in found.items() if name.startswith("stream to")
        }
        if by_layer:
            axes.plot(list(by_layer), list(by_layer.values()), color=colour, marker=marker, label=label)
            whole = found["all heads and MLPs"]
            axes.axhline(whole, color=colour, linestyle=":", label=f"{label}, each unit apart")
    axes.set_xlabel("layer up to which contributions are summed")
    axes.set_ylabel("accuracy on test of a linear probe")
    axes.grid(color="#eeeeee")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    title_of(figure, f"{NAMED}: what a linear map can read")
    return figure


if __name__ == "__main__":
    for path in draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])):
        print(path)
