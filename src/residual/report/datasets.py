"""Datasets as tables: those that there are, and what is in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from residual.data import SPLITS, ImageDataset, Manifest, dataset_descriptions


def dataset_rows() -> list[dict[str, Any]]:
    """One entry a dataset: `mixed`, the offline suite, the paper's suite, `random`."""
    return [asdict(description) for description in dataset_descriptions()]


def datasets_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row a dataset."""
    table = Table(box=None, pad_edge=False)
    for heading in ("name", *SPLITS, "classes"):
        table.add_column(heading, justify="left" if heading == "name" else "right", no_wrap=True)
    for row in rows:
        sizes = (f"{row['sizes'][split]:,}" for split in SPLITS)
        table.add_row(row["name"], *sizes, f"{row['classes']:,}")
    return table


def dataset_facts(splits: Mapping[str, ImageDataset]) -> dict[str, Any]:
    """What is in the splits of one dataset."""
    one = next(iter(splits.values()))
    known = {row["name"]: row for row in dataset_rows()}.get(one.name, {})
    return {
        "name": one.name,
        "about": known.get("about"),
        "source": known.get("source"),
        "licence": one.licence,
        "classes": list(one.class_names),
        "templates": list(one.templates),
        "groups": list(one.group_names),
        "splits": {split: _split_facts(dataset) for split, dataset in splits.items()},
    }


def _split_facts(dataset: ImageDataset) -> dict[str, Any]:
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    facts: dict[str, Any] = {
        "images": len(dataset),
        "smallest_class": int(counts.min()),
        "largest_class": int(counts.max()),
        "checksum": Manifest.of(dataset).checksum,
    }
    if dataset.groups is not None:
        facts["groups"] = np.bincount(dataset.groups, minlength=len(dataset.group_names)).tolist()
    return facts


def dataset_facts_table(facts: Mapping[str, Any]) -> Table:
    """A row a fact."""
    table = Table(show_header=False)
    for name in ("name", "about", "source", "licence"):
        if facts[name]:
            table.add_row(name, facts[name])
    table.add_row("classes", _few(facts["classes"], 8))
    table.add_row("templates", _few(facts["templates"], 3))
    for split, it in facts["splits"].items():
        small, large = it["smallest_class"], it["largest_class"]
        each = f"{small:,}" if small == large else f"{small:,} to {large:,}"
        table.add_row(split, f"{it['images']:,} images, {each} a class; checksum {it['checksum'][:16]}")
        if "groups" in it:
            pairs = zip(facts["groups"], it["groups"], strict=True)
            table.add_row("", ", ".join(f"{count:,} {group}" for group, count in pairs))
    return table


def _few(values: Sequence[str], most: int) -> str:
    more = f", … ({len(values):,} in all)" if len(values) > most else ""
    return ", ".join(values[:most]) + more
