"""Results as tables: for the terminal, for Markdown, for the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from residual.adapters.methods import METHODS
from residual.intervals import shown
from residual.report.geometry import markdown_table
from residual.report.layout import Table

SHOTS = "@"  # in cells' names, between a method and of how many pictures of each class it was fitted
METHOD_NAMES = {"zero_shot": "zero-shot"} | {name: each.label for name, each in METHODS.items()}


def percent(part: float) -> str:
    """`12.3 %`."""
    return f"{100 * part:.1f} %"


def accuracy_of(summary: dict[str, Any], method: str, pictures: bool = True) -> str:
    """`98.7 ± 0.3 % (97.8 to 99.2)`: ± over seeds, where there are several, and a range over test pictures.

    Args:
        summary: of `run_tasks`, `train_on` or `evaluate_encoder`.
        method: one of its methods.
        pictures: whether the range is wanted.
    """
    n = summary.get("n_test", summary.get("samples")) if pictures else None
    return shown(summary["accuracy"][method], summary.get("interval", {}).get(method), n)


def untrained(summary: dict[str, Any]) -> str:
    """What the encoder alone is called: by texts, or by class means."""
    return METHOD_NAMES["zero_shot"] if summary.get("classifier", "text") == "text" else "class means"


def run_rows(summary: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Method, accuracy, weights trained, seconds of fitting (for one seed)."""
    rows = [(untrained(summary), accuracy_of(summary, "zero_shot"), "0", "")]
    for method, weights in summary["parameters"].items():
        seconds = summary["seconds"][f"fit_{method}"] / len(summary["seeds"])
        rows.append((METHOD_NAMES[method], accuracy_of(summary, method), f"{weights:,}", f"{seconds:.1f}"))
    return rows


def run_table(summary: dict[str, Any]) -> Table:
    """One dataset: a row a method."""
    title = f"{summary['encoder']} on {summary['dataset']}, {summary['n_test']:,} unseen pictures"
    table = Table(title)
    table.add_column("method")
    for heading in ("accuracy", "weights trained", "seconds to fit"):
        table.add_column(heading, justify="right")
    for row in run_rows(summary):
        table.add_row(*row)
    return table


def evaluation_table(summary: dict[str, Any]) -> Table:
    """One dataset's split: a row a method."""
    title = (
        f"{summary['encoder']} on {summary['dataset']}/{summary['split']}, {summary['samples']:,} pictures"
    )
    table = Table(title)
    table.add_column("method")
    table.add_column("accuracy", justify="right")
    for method in summary["accuracy"]:
        table.add_row(METHOD_NAMES.get(method, method), accuracy_of(summary, method))
    return table


def suite_rows(summaries: Sequence[dict[str, Any]], pictures: bool = True) -> list[tuple[str, ...]]:
    """Dataset, classes, test pictures, and each method's accuracy; the last row is the mean.

    Args:
        summaries: one a dataset.
        pictures: whether accuracies have their intervals over pictures, too, for which a terminal is narrow.
    """
    rows = [
        (
            s["dataset"],
            str(s["classes"]),
            f"{s['n_test']:,}",
            *(accuracy_of(s, method, pictures) for method in s["accuracy"]),
        )
        for s in summaries
    ]
    means = [sum(s["accuracy"][m] for s in summaries) / len(summaries) for m in summaries[0]["accuracy"]]
    return [*rows, ("mean", "", "", *(percent(mean) for mean in means))]


def suite_headings(summaries: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Those of `suite_rows`."""
    names = (METHOD_NAMES[method] for method in summaries[0]["accuracy"])
    return ("dataset", "classes", "test pictures", *names)


def suite_table(summaries: Sequence[dict[str, Any]]) -> Table:
    """Several datasets: a row each, and their mean."""
    table = Table(f"{summaries[0]['encoder']} on the offline suite, accuracy on test pictures")
    for column, heading in enumerate(suite_headings(summaries)):
        table.add_column(heading, justify="right" if column else "left")
    rows = suite_rows(summaries, pictures=False)
    for row in rows[:-1]:
        table.add_row(*row)
    table.add_section()
    table.add_row(*rows[-1])
    return table


def suite_markdown(summaries: Sequence[dict[str, Any]]) -> str:
    """The same as a Markdown table."""
    return markdown_table(suite_headings(summaries), suite_rows(summaries))
