"""What can be loaded, as tables: encoders by their short names, datasets, and what is inside one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from residual.data import SPLITS, ImageDataset, Manifest, dataset_descriptions
from residual.encoders.names import Alias
from residual.errors import ResidualError
from residual.files import shareable
from residual.report.layout import Table

if TYPE_CHECKING:  # torch comes with them, and isn't needed to list names
    from residual.encoders.encoder import Encoder

_TEXT = {"split": "yes", "encode": "not split", "": "no"}


def alias_rows(aliases: Mapping[str, Alias]) -> list[dict[str, Any]]:
    """One entry a short name."""
    return [{"name": name, **asdict(alias)} for name, alias in aliases.items()]


def aliases_table(aliases: Mapping[str, Alias]) -> Table:
    """A row a short name."""
    table = Table()
    numbers = ("layers", "heads", "width", "output", "image")
    for heading in ("name", "family", *numbers, "text"):
        justify = "right" if heading in numbers else "left"
        table.add_column(heading, justify=justify)
    for name, alias in aliases.items():
        shape = (alias.layers, alias.heads, alias.width, alias.output_dim, alias.image_size)
        table.add_row(name, alias.family, *map(str, shape), _TEXT[alias.text])
    return table


def encoder_facts(encoder: Encoder) -> dict[str, Any]:
    """What is inside an encoder, read off its modules."""
    from residual.tracing.linearization import Linearization
    from residual.tracing.units import KINDS

    parts, units = encoder.parts, Linearization.of(encoder).units
    facts: dict[str, Any] = {
        "name": shareable(encoder.name),
        "family": encoder.family.name,
        "parameters": sum(parameter.numel() for parameter in encoder.module.parameters()),
        "layers": len(parts.blocks),
        "heads": parts.heads,
        "head_width": parts.head_width,
        "width": parts.width,
        "output_dim": encoder.output_dim,
        "image_size": encoder.image_size,
        "pooling": _pooling(encoder),
        "units": {kind: len(units.positions(kind)) for kind in KINDS},
        "fingerprint": encoder.fingerprint,
        "text": None,
    }
    if encoder.family.text is not None:
        try:
            text = encoder.text_parts
            facts["text"] = {"layers": len(text.blocks), "heads": text.heads, "width": text.width}
        except ResidualError as error:
            facts["text"] = str(error)
    return facts


def _pooling(encoder: Encoder) -> str:
    from residual.encoders.pooling import AttentionPool, MeanPool

    pool = encoder.parts.pool
    if isinstance(pool, AttentionPool):
        return "attention, with an MLP behind it"
    if isinstance(pool, MeanPool):
        tokens = "patches" if pool.first == encoder.parts.prefix else "all tokens"
        return f"mean of {tokens}, normed {'before' if pool.norm_first else 'after'}"
    return "class token"


def facts_table(facts: Mapping[str, Any]) -> Table:
    """A row a fact."""
    table = Table()
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{count:,} {kind}" for kind, count in value.items())
        elif isinstance(value, int):
            value = f"{value:,}"
        elif isinstance(value, tuple):
            value = " × ".join(map(str, value))
        elif name == "fingerprint":
            value = value[:16]
        shown = {None: "none" if name == "text" else "any multiple of its patches"}.get(value, value)
        table.add_row(name.replace("_", " "), str(shown))
    return table


def dataset_rows() -> list[dict[str, Any]]:
    """One entry a dataset: `mixed`, the offline suite, the paper's suite, `random`."""
    return [asdict(description) for description in dataset_descriptions()]


def datasets_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row a dataset."""
    table = Table()
    for heading in ("name", *SPLITS, "classes"):
        table.add_column(heading, justify="left" if heading == "name" else "right")
    for row in rows:
        sizes = (f"{row['sizes'][split]:,}" for split in SPLITS)
        table.add_row(row["name"], *sizes, f"{row['classes']:,}")
    return table


def dataset_facts(splits: Mapping[str, ImageDataset]) -> dict[str, Any]:
    """What is in the splits of one dataset."""
    one = next(iter(splits.values()))
    known = {row["name"]: row for row in dataset_rows()}.get(one.name, {})
    return {
        "name": shareable(one.name),
        "about": known.get("about"),
        "source": known.get("source"),
        "licence": one.licence,
        "classes": list(one.class_names),
        "templates": list(one.templates),
        "groups": list(one.group_names),
        "notes": list(dict.fromkeys(note for each in splits.values() for note in each.notes)),
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
    table = Table()
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
