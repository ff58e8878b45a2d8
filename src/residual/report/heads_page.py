"""Heads in words and pictures: one self-contained HTML page, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from residual.data import ImageDataset
from residual.encoders.encoder import Encoder
from residual.files import write_text
from residual.heads.descriptions import (
    TASKS,
    ComponentDescription,
    DescribeSettings,
    HeadDescription,
    NearText,
)
from residual.outputs import check_file
from residual.products import HEADS_PAGE
from residual.progress import Progress
from residual.report.end_maps import EndMaps, end_maps
from residual.report.layout import Table
from residual.report.pages import PAGES, Thumbnails
from residual.report.tables import percent
from residual.spectral.bases import SpectralBases

_BARS = 100  # of a spectrum, at most
_HEIGHT, _WIDEST, _ROOM = 110.0, 22.0, 560.0  # of the first bar, of a bar, of all, in units of the drawing
_NAMED = 3  # texts in a row of a table


@dataclass(frozen=True)
class DescribedHeads:
    """Heads as they are shown.

    Args:
        title: what they are of.
        settings: how they were chosen and described.
        heads: the descriptions.
        of: how many heads the encoder has.
        dictionary: its name or file.
        entries: how many texts it has.
        chosen: they are the best of all by these samples, not named by the user.
        notes: what is not as it should be, a sentence each.
        unsuited: why the dictionary names nothing of these data; "" where it may.
    """

    title: str
    settings: DescribeSettings
    heads: Sequence[HeadDescription]
    of: int
    dictionary: str
    entries: int
    chosen: bool = False
    notes: tuple[str, ...] = ()
    unsuited: str = ""

    @property
    def chosen_note(self) -> str:
        """How far scores hold of heads that were chosen by them."""
        return (
            "Scores are of the samples that these heads were found the best by: of others they are lower."
            if self.chosen
            else ""
        )


def write_heads_page(
    path: str | Path,
    described: DescribedHeads,
    dataset: ImageDataset | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    *,
    encoder: Encoder | None = None,
    bases: SpectralBases | None = None,
) -> Path:
    """Write the page of some heads: each with its texts, its spectrum and the pictures at its ends.

    Args:
        path: of the HTML file; nothing else is written, pictures are inside it.
        described: the heads.
        dataset: with the pictures; without it samples are named.
        progress: called with the number of pictures read and their total.
        overwrite: whether an earlier page of heads may be replaced.
        encoder, bases: that of the heads, and their bases: with both, each picture has beside it a map of
            where in it its head has the component from.

    Raises:
        ExistingError, ForeignError: one is there already, see `overwrite`; or something else is.
        ResidualError: the place can't be written to.
    """
    path = check_file(path, HEADS_PAGE, overwrite)
    wanted = _wanted(described.heads)
    pictures, notes = _pictures(wanted, dataset, progress)
    maps = EndMaps()
    if dataset is not None and encoder is not None and bases is not None:
        maps = end_maps(encoder, bases, dataset, wanted, progress)
    page = PAGES.get_template("heads.html").render(
        {name: getattr(described, name) for name in ("title", "settings", "of", "entries", "chosen_note")},
        task=TASKS[described.settings.task],
        source=described.dictionary,
        notes=[*filter(None, [described.unsuited]), *described.notes, *notes, *filter(None, [maps.note])],
        headings=_headings(described),
        rows=_rows(described),
        heads=[_section(head, described.settings) for head in described.heads],
        pictures=pictures,
        maps=maps,
    )
    write_text(path, page)
    return path


def heads_table(described: DescribedHeads) -> Table:
    """A row a head, for the terminal."""
    table = Table(described.title)
    *numbers, last = _headings(described)
    for heading in numbers:
        table.add_column(heading, justify="right")
    table.add_column(last)
    for row in _rows(described):
        table.add_row(*row)
    return table


def _headings(described: DescribedHeads) -> tuple[str, ...]:
    return ("head", described.settings.task, "rank", "linear", "PR", "first EVR", "told", "needed", "texts")


def _rows(described: DescribedHeads) -> list[tuple[str, ...]]:
    """For each head its score and rank, its dimensions, what its texts tell and chance at most, and the first
    of them if that is less.
    """
    return [
        (
            head.name,
            _score(head.score, described.settings.task),
            "–" if head.rank is None else f"{head.rank}/{described.of}",
            f"{head.linear_dimension}",
            "–" if head.participation_ratio is None else f"{head.participation_ratio:.1f}",
            percent(head.explained_variance_ratio[0]) if head.explained_variance_ratio else "–",
            percent(head.share) if head.texts else "–",
            "–" if head.chance is None else percent(head.chance.bound),
            "; ".join(_first_texts(head)),
        )
        for head in described.heads
    ]


def _first_texts(head: HeadDescription) -> list[str]:
    if not head.texts:
        return ["–"]
    return [chosen.text for chosen in head.texts[:_NAMED]] if head.named else ["no name"]


def _near(head: HeadDescription, texts: Sequence[NearText]) -> list[NearText]:
    """Those nearer to a component than the nearest of as many random directions."""
    if head.unsuited:
        return []
    return [near for near in texts if head.chance is None or near.cosine > head.chance.cosine]


def _score(value: float | None, task: str) -> str:
    """An accuracy in per cent, a correlation as it is."""
    if value is None:
        return "–"
    return percent(value) if task == "accuracy" else f"{value:.3f}"


def _section(head: HeadDescription, settings: DescribeSettings) -> dict[str, Any]:
    ratios = head.explained_variance_ratio
    return {
        "name": head.name,
        "anchor": f"head-{head.layer}-{head.head}",
        "title": f"Layer {head.layer}, head {head.head}",
        "score": _score(head.score, settings.task),
        "rank": head.rank,
        "linear_dimension": head.linear_dimension,
        "participation_ratio": head.participation_ratio,
        "named": head.named,
        "unsuited": head.unsuited,
        "verdict": head.verdict,
        "cosine": "" if head.chance is None else f"{head.chance.cosine:.2f}",
        "texts": [
            (chosen.text, percent(chosen.explained_variance), chosen.explained_variance)
            for chosen in head.texts
        ],
        "spectrum": _spectrum(head, len(head.components)),
        "rank_of_head": len(ratios),
        "components": [
            {
                "name": _name(head, component),
                "title": f"Component {component.index + 1}",
                "explained": percent(component.explained_variance_ratio),
                "ends": (
                    ("positive", _near(head, component.positive_texts), component.largest),
                    ("negative", _near(head, component.negative_texts), component.smallest),
                ),
            }
            for component in head.components
        ],
    }


def _spectrum(head: HeadDescription, shown: int) -> dict[str, Any]:
    """The explained variance ratios as bars."""
    ratios = head.explained_variance_ratio[:_BARS]
    if not ratios:
        return {"bars": []}
    step = min(_WIDEST, _ROOM / len(ratios))
    bars = [
        {
            "x": f"{k * step:.2f}",
            "y": f"{_HEIGHT * (1 - ratio / ratios[0]):.2f}",
            "width": f"{0.8 * step:.2f}",
            "height": f"{_HEIGHT * ratio / ratios[0]:.2f}",
            "shown": k < shown,
            "title": f"component {k + 1}: {percent(ratio)}",
        }
        for k, ratio in enumerate(ratios)
    ]
    mark = head.linear_dimension * step - 0.1 * step if head.linear_dimension <= len(ratios) else None
    return {
        "bars": bars,
        "width": round(step * len(ratios)),
        "height": round(_HEIGHT),
        "mark": None if mark is None else f"{mark:.2f}",
        "first": percent(ratios[0]),
        "count": len(ratios),
    }


def _name(head: HeadDescription, component: ComponentDescription) -> str:
    """As maps call it, from 0."""
    return f"{head.name}:{component.index}"


def _wanted(heads: Sequence[HeadDescription]) -> dict[str, list[str]]:
    """Of each component the ids of the samples at its ends."""
    return {
        _name(head, component): [end.sample_id for end in (*component.largest, *component.smallest)]
        for head in heads
        for component in head.components
    }


def _pictures(
    wanted: Mapping[str, Sequence[str]],
    dataset: ImageDataset | None,
    progress: Progress | None,
) -> tuple[dict[str, str], list[str]]:
    """Every picture that is shown, by its sample's id, each read once; and what couldn't be read."""
    if dataset is None:
        return {}, []
    shown = {sample for some in wanted.values() for sample in some}
    order, read, found = (
        [sample for sample in dataset.sample_ids if sample in shown],
        Thumbnails(dataset),
        {},
    )
    for done, sample in enumerate(order, 1):
        if uri := read[sample]:
            found[sample] = uri
        if progress is not None:
            progress("read pictures", done, len(order))
    if not read.unreadable:
        return found, []
    return found, [f"Pictures that can't be read any more are left out: {', '.join(read.unreadable)}."]
