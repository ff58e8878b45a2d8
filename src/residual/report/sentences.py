"""What came out, in plain words: which method is the best, how far that holds, and what the signs mean."""

from __future__ import annotations

from typing import Any

from residual.adapters.methods import METHODS
from residual.intervals import OVER_SEEDS, Interval, few_samples, over_pictures, over_seeds
from residual.report.tables import METHOD_NAMES, untrained


def sentence(summary: dict[str, Any]) -> str:
    """Which method is the best on the test pictures, whichever it is, beside zero-shot and the next one.

    Where a difference is within its interval over the pictures (paired, see `residual.intervals`), that is
    said: other pictures may turn it round.

    Args:
        summary: of `run_tasks`, `train_on` or `evaluate_encoder`.
    """
    return " ".join(filter(None, (_best(summary), starts_kept(summary))))


def parts_note(summary: dict[str, Any]) -> str:
    """How train, val and test were made, where they aren't as the dataset has them; else nothing."""
    told, sizes = [*summary["notes"]], [summary[f"n_{split}"] for split in ("train", "val", "test")]
    if 0 < (limit := summary["limit"]) <= max(sizes) + len(summary["skipped"]):
        few = f", fewer than its {summary['classes']:,} classes" if limit < summary["classes"] else ""
        told.append(
            f"Of each part at most {limit:,} pictures{few}, chosen at random, the same every time: "
            f"{sizes[0]:,} train, {sizes[1]:,} val, {sizes[2]:,} test."
        )
    if names := summary["held_out"]:
        told.append(
            f"Held out of training, to choose by: the {sizes[1]:,} pictures of {', '.join(map(repr, names))}."
        )
    return " ".join(told)


def _best(summary: dict[str, Any]) -> str:
    first, above = summary["best"]["method"], summary["best"]["above"]
    others = sorted(above, key=lambda method: -summary["accuracy"][method])
    beside = [each for each in others if each == "zero_shot"] if first != "zero_shot" else []
    beside += [each for each in others if each != "zero_shot"][:1]
    right = f"{summary['encoder']} gets {_share(summary, first)} of the {summary['dataset']} pictures right"
    told = ", and ".join(_above(summary, each) for each in beside)
    best = ""
    if others:  # where another does as well, it isn't the best
        best = "The best is " if all(above[each][0] for each in others) else "None is better than "
    return f"{best}{_name(summary, first)}{_done(summary, first)}: {right}{', ' if told else ''}{told}."


def _above(summary: dict[str, Any], other: str) -> str:
    difference, name = summary["best"]["above"][other], _name(summary, other)
    if difference[0] == 0:
        return f"as many as {name} {over_pictures(difference, ' points more')}"
    points = f"{100 * difference[0]:.1f} points {over_pictures(difference)} more than {name}"
    return points if Interval(*difference).tells else f"{points}, which may be chance"


def _done(summary: dict[str, Any], method: str) -> str:
    if method == "zero_shot":
        return " (nothing trained)"
    weights = summary.get("parameters", {})
    return f" ({METHODS[method].trained.format(weights[method])})" if method in weights else ""


def _name(summary: dict[str, Any], method: str) -> str:
    return untrained(summary) if method == "zero_shot" else METHOD_NAMES.get(method, method)


def _share(summary: dict[str, Any], method: str) -> str:
    return f"{100 * summary['accuracy'][method]:.1f} % {over_pictures(summary['over_pictures'][method])}"


def starts_kept(summary: dict[str, Any]) -> str:
    """In how many fits no epoch was better on val than the first weights; nothing where there are none."""
    kept = {method: (each.count(0), len(each)) for method, each in summary.get("best_epoch", {}).items()}
    told = [f"{few} of {fits} fits of {METHOD_NAMES[method]}" for method, (few, fits) in kept.items() if few]
    if not told:
        return ""
    return f"In {' and '.join(told)} no epoch was better on val than the first weights, which are kept."


def intervals_note(summary: dict[str, Any], pictures: bool = True) -> str:
    """What the signs beside the accuracies mean, for a line under a table; and that pictures are too few.

    Args:
        summary: of `run_tasks`, `train_on` or `evaluate_encoder`.
        pictures: whether the table has intervals over pictures.
    """
    n = summary.get("n_test", summary.get("samples", 0))
    them = "one test picture" if n == 1 else f"{n:,} test pictures"
    over = f"In brackets: Wilson's 95 % interval over the {them}." if pictures else ""
    return " ".join(filter(None, (over, seeds_note(summary), few_samples(n) if pictures else "")))


def seeds_note(summary: dict[str, Any]) -> str:
    """What `±` means there; nothing of one fit."""
    seeds, halves = len(summary.get("seeds", ())), summary.get("interval", {}).values()
    if seeds < 2:
        return ""
    shown = [bool(over_seeds(half)) for half in halves]
    if not any(shown):
        return f"All {seeds} seeds agree, so there is no ±; that says nothing about other pictures."
    none = "" if all(shown) else ", none where all agree"
    return f"{OVER_SEEDS} over {seeds} seeds{none}."
