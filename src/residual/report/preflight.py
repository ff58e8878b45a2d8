"""What an experiment needs, its encoders and its datasets, and what failed: for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from residual.data.lookup import DatasetFacts
from residual.data.splits import SPLITS
from residual.encoders.lookup import EncoderFiles
from residual.files import shareable
from residual.report.layout import Table

_ENCODERS = ("encoder", "from", "layers", "width", "size", "to fetch", "ok")
_DATASETS = ("dataset", "from", *SPLITS, "classes", "to fetch", "ok")
_LEFT = ("encoder", "dataset", "from", "ok")


def preflight_tables(encoders: Sequence[EncoderFiles], datasets: Sequence[DatasetFacts]) -> list[Table]:
    """A table of encoders and a table of datasets; below it what wasn't looked at."""
    of_datasets = _table(_DATASETS, [(each, _of_dataset(each)) for each in datasets])
    notes = [f"{shareable(each.name)}: {each.note}." for each in datasets if each.note and not each.error]
    of_datasets.note = "\n".join(notes)
    return [_table(_ENCODERS, [(each, _of_encoder(each)) for each in encoders]), of_datasets]


def by_reason(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Cells with a `reason`, as "encoder on dataset, dataset; encoder on dataset", by that reason.

    Example:
        >>> by_reason([{"encoder": "a", "dataset": name, "reason": "No."} for name in ("x", "y")])
        {'No.': 'a on x, y'}
    """
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        found.setdefault(row["reason"], {}).setdefault(row["encoder"], []).append(row["dataset"])
    return {
        reason: "; ".join(f"{encoder} on {', '.join(names)}" for encoder, names in own.items())
        for reason, own in found.items()
    }


def in_bytes(count: int) -> str:
    """Bytes in words: "1.3 GB".

    Example:
        >>> in_bytes(0), in_bytes(1_300_000_000)
        ('0 kB', '1.3 GB')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e3:.0f} kB"


def _table(
    headings: Sequence[str], rows: Sequence[tuple[EncoderFiles | DatasetFacts, Sequence[str]]]
) -> Table:
    table = Table()
    for heading in headings:
        table.add_column(heading, justify="left" if heading in _LEFT else "right")
    for facts, holds in rows:
        known = "in cache" if facts.kept else in_bytes(facts.absent) if facts.absent else ""
        known = "" if facts.error else known
        cells = facts.name, facts.source, *holds, known, "no" if facts.error else "yes"
        table.add_row(*cells)
    return table


def _of_encoder(facts: EncoderFiles) -> list[str]:
    shape = [f"{number}" if number else "" for number in (facts.layers, facts.width)]
    return [*shape, in_bytes(facts.size) if facts.size else ""]


def _of_dataset(facts: DatasetFacts) -> list[str]:
    numbers = (*(facts.sizes.get(split) for split in SPLITS), facts.classes)
    return [f"{number:,}" if number else "" for number in numbers]
