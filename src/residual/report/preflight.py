"""The table of what an experiment needs: its encoders and its datasets, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from residual.data.lookup import DatasetFacts
from residual.encoders.lookup import EncoderFiles

_WIDTHS = {"needed": 16, "from": 22, "holds": 25, "to fetch": 8, "ok": 3}  # 80 with the gaps


def preflight_table(encoders: Sequence[EncoderFiles], datasets: Sequence[DatasetFacts]) -> Table:
    """A row an encoder and a row a dataset, in at most 80 columns."""
    table = Table(box=None, pad_edge=False)
    for heading, width in _WIDTHS.items():
        justify = "right" if heading == "to fetch" else "left"
        table.add_column(heading, justify=justify, max_width=width, no_wrap=True, overflow="ellipsis")
    for encoder in encoders:
        _add(table, encoder, _of_encoder(encoder))
    table.add_section()
    for dataset in datasets:
        _add(table, dataset, _of_dataset(dataset))
    return table


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


def _add(table: Table, facts: EncoderFiles | DatasetFacts, holds: Sequence[str]) -> None:
    known = in_bytes(facts.absent) if facts.absent and not facts.error else ""
    cells = facts.name, facts.source, "\n".join(holds), known, "no" if facts.error else "yes"
    table.add_row(*map(Text, cells))


def _of_encoder(facts: EncoderFiles) -> list[str]:
    shape = f"{facts.layers} layers of {facts.width}" if facts.layers and facts.width else ""
    return [shape, *([in_bytes(facts.size)] if facts.size else [])]


def _of_dataset(facts: DatasetFacts) -> list[str]:
    sizes = [f"{split} {size:,}" for split, size in facts.sizes.items()]
    classes = f"{facts.classes:,} classes" if facts.classes else ""
    return [*sizes, ", ".join(filter(None, (classes, *facts.columns)))]
