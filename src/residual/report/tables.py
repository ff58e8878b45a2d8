"""Results as tables and as a sentence: for the terminal, for Markdown, for the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from residual.adapters.methods import METHODS
from residual.report.geometry import markdown_table
from residual.report.layout import Table

SHOTS = "@"  # in cells' names, between a method and of how many pictures of each class it was fitted
METHOD_NAMES = {"zero_shot": "zero-shot"} | {name: each.label for name, each in METHODS.items()}


def percent(part: float) -> str:
    """`12.3 %`."""
    return f"{100 * part:.1f} %"


def accuracy_of(summary: dict[str, Any], method: str) -> str:
    """`98.7 %`, or `98.7 ± 0.3 %` where there are several seeds."""
    accuracy, half = 100 * summary["accuracy"][method], summary["interval"].get(method)
    return f"{accuracy:.1f} %" if half is None else f"{accuracy:.1f} ± {100 * half:.1f} %"


def run_rows(summary: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Method, accuracy, weights trained, seconds of fitting (for one seed)."""
    untrained = METHOD_NAMES["zero_shot"] if summary["classifier"] == "text" else "class means"
    rows = [(untrained, accuracy_of(summary, "zero_shot"), "0", "")]
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
    """One dataset's split: a row a method, ± twice the standard error."""
    title = (
        f"{summary['encoder']} on {summary['dataset']}/{summary['split']}, {summary['samples']:,} pictures"
    )
    table = Table(title)
    table.add_column("method")
    table.add_column("accuracy", justify="right")
    for method, accuracy in summary["accuracy"].items():
        error = 2 * summary["standard_error"][method]
        table.add_row(METHOD_NAMES.get(method, method), f"{100 * accuracy:.1f} ± {100 * error:.1f} %")
    return table


def suite_rows(summaries: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Dataset, classes, test pictures, and each method's accuracy; the last row is the mean."""
    rows = [
        (
            s["dataset"],
            str(s["classes"]),
            f"{s['n_test']:,}",
            *(accuracy_of(s, method) for method in s["accuracy"]),
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
    rows = suite_rows(summaries)
    for row in rows[:-1]:
        table.add_row(*row)
    table.add_section()
    table.add_row(*rows[-1])
    return table


def suite_markdown(summaries: Sequence[dict[str, Any]]) -> str:
    """The same as a Markdown table."""
    return markdown_table(suite_headings(summaries), suite_rows(summaries))


def sentence(summary: dict[str, Any]) -> str:
    """What came out, in plain words: of the last method, beside the one before it."""
    accuracy, weights = summary["accuracy"], summary["parameters"]
    *others, last = weights
    before, after = (100 * accuracy[method] for method in ("zero_shot", last))
    moved = "raises" if after > before else "lowers" if after < before else "leaves"
    what = f"{moved} the share of {summary['dataset']} pictures that {summary['encoder']} gets right"
    amount = f"from {before:.1f} to {after:.1f} %" if after != before else f"at {after:.1f} %"
    said = f"With the encoder frozen, {METHODS[last].trained.format(weights[last])} {what} {amount}"
    if others:
        other = others[-1]
        said += f"; {METHODS[other].trained.format(weights[other])} reaches {100 * accuracy[other]:.1f} %"
    return " ".join(filter(None, (f"{said}.", starts_kept(summary))))


def starts_kept(summary: dict[str, Any]) -> str:
    """In how many fits no epoch was better on val than the first weights; nothing where there are none."""
    kept = {method: (each.count(0), len(each)) for method, each in summary.get("best_epoch", {}).items()}
    told = [f"{few} of {fits} fits of {METHOD_NAMES[method]}" for method, (few, fits) in kept.items() if few]
    if not told:
        return ""
    return f"In {' and '.join(told)} no epoch was better on val than the first weights, which are kept."
