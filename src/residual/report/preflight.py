"""What an experiment needs, its encoders and its datasets, and what failed: for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from residual.data.lookup import DatasetFacts
from residual.data.splits import SPLITS
from residual.encoders.lookup import EncoderFiles
from residual.files import shareable

_ENCODERS = {"encoder": 17, "from": 22, "layers": 6, "width": 5, "size": 7, "to fetch": 8, "ok": 3}
_DATASETS = {
    "dataset": 15, "from": 16, "train": 9, "val": 6, "test": 6, "classes": 7, "to fetch": 8, "ok": 3,
}  # fmt: skip
_LEFT = ("encoder", "dataset", "from", "ok")


def preflight_tables(encoders: Sequence[EncoderFiles], datasets: Sequence[DatasetFacts]) -> list[Table]:
    """A table of encoders and a table of datasets, a line each, in at most 80 columns; below it what wasn't
    looked at."""
    of_datasets = _table(_DATASETS, [(each, _of_dataset(each)) for each in datasets])
    notes = [f"{shareable(each.name)}: {each.note}." for each in datasets if each.note and not each.error]
    of_datasets.caption, of_datasets.caption_justify = Text("\n".join(notes)) if notes else None, "left"
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
    widths: Mapping[str, int], rows: Sequence[tuple[EncoderFiles | DatasetFacts, Sequence[str]]]
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, width in widths.items():
        justify = "left" if heading in _LEFT else "right"
        table.add_column(heading, justify=justify, max_width=width, no_wrap=True, overflow="ellipsis")
    for facts, holds in rows:
        known = "in cache" if facts.kept else in_bytes(facts.absent) if facts.absent else ""
        known = "" if facts.error else known
        cells = facts.name, facts.source, *holds, known, "no" if facts.error else "yes"
        table.add_row(*map(Text, cells))
    return table


def _of_encoder(facts: EncoderFiles) -> list[str]:
    shape = [f"{number}" if number else "" for number in (facts.layers, facts.width)]
    return [*shape, in_bytes(facts.size) if facts.size else ""]


def _of_dataset(facts: DatasetFacts) -> list[str]:
    numbers = (*(facts.sizes.get(split) for split in SPLITS), facts.classes)
    return [f"{number:,}" if number else "" for number in numbers]
