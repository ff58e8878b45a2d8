"""Self-contained HTML pages: what all share, and that of the suite."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from residual.data import ImageDataset
from residual.errors import UnreadableImageError, printable
from residual.files import write_text
from residual.outputs import check_file
from residual.products import RUN_PAGE, SUITE_TABLE
from residual.report.sentences import seeds_note
from residual.report.tables import suite_headings, suite_markdown, suite_rows

_LOSSLESS = 2048  # bytes of a picture, up to which every pixel is kept
_QUALITY = 82
_COMMA = Markup("\u2060, ")  # with a word joiner: a name is a box, and lines may break behind any box
_LONG = 12  # letters of a name that a narrow column may cut


def name_html(name: str) -> Markup:
    """A name of unknown origin: never broken inside a word, only where its own signs part it; and in its own
    direction of writing.
    """
    name = printable(name)
    parts = re.split(r"(?<=[_\-./])(?=[^_\-./])", name)
    whole = Markup(' title="{}"').format(name) if len(name) > _LONG else ""  # its end may not be seen
    return Markup('<bdi class="name"{}>{}</bdi>').format(whole, Markup("<wbr>").join(map(escape, parts)))


def names_html(names: Sequence[str], last: str = "") -> Markup:
    """Several names, with commas between, or `last` before the last one; no line begins with a comma."""
    *first, end = map(name_html, names)
    return (Markup(last) or _COMMA).join([_COMMA.join(first), end] if first else [end])


PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("residual.report"),
    autoescape=True,
    finalize=lambda value: printable(value) if type(value) is str else value,  # not of what is markup
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
PAGES.filters |= {"name": name_html, "names": names_html, "number": "{:,}".format}


def picture_file(image: Image.Image, side: int = 64) -> tuple[str, bytes]:
    """The picture as a file, at most `side` pixels a side: "png", or "jpeg" where that is smaller."""
    image = image.convert("RGB")
    image.thumbnail((side, side))
    forms = [("png", encoded(image, "PNG", optimize=True))]
    if len(forms[0][1]) > _LOSSLESS:
        forms.append(("jpeg", encoded(image, "JPEG", quality=_QUALITY, optimize=True)))
    return min(forms, key=lambda each: len(each[1]))


def picture_uri(image: Image.Image, side: int = 64) -> str:
    """`picture_file` as a data URI."""
    form, data = picture_file(image, side)
    return data_uri(f"image/{form}", data)


def data_uri(media: str, data: bytes) -> str:
    """A file inside a page, by its media type."""
    return f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"


class Thumbnails:
    """Pictures of a dataset by their samples' ids, each read once.

    Args:
        dataset: some of its pictures may be missing where samples are named.
        side: of the largest, in pixels.

    Attributes:
        unreadable: ids of those that can't be read any more.
        size: of all that were asked for, in characters, as often as they were.
    """

    def __init__(self, dataset: ImageDataset, side: int = 64):
        self.dataset, self.side, self.size = dataset, side, 0
        self.unreadable: list[str] = []
        self._positions = {sample: k for k, sample in enumerate(dataset.sample_ids)}
        self._read: dict[str, str] = {}

    def __getitem__(self, sample: str) -> str:
        """Its data URI; empty if it can't be read."""
        if sample not in self._read:
            try:
                image = self.dataset[self._positions[sample]][0]
                self._read[sample] = picture_uri(image, self.side)
            except (UnreadableImageError, KeyError):
                self._read[sample] = ""
                self.unreadable.append(sample)
        self.size += len(self._read[sample])
        return self._read[sample]


def write_suite_page(
    folder: str | Path, summaries: Sequence[dict[str, Any]], overwrite: bool = False
) -> None:
    """Write `index.html`, a table that leads to the pages of the runs, and `table.md`, the same table;
    earlier ones are replaced on request only.

    Raises:
        ExistingError, ForeignError: one is there already, see `overwrite`; or something else is.
        ResidualError: the folder can't be written to.
    """
    page_at = check_file(Path(folder) / "index.html", RUN_PAGE, overwrite)
    table_at = check_file(Path(folder) / "table.md", SUITE_TABLE, overwrite)
    page = PAGES.get_template("suite.html").render(
        headings=suite_headings(summaries),
        rows=suite_rows(summaries),
        encoder=summaries[0]["encoder"],
        summaries=summaries,
        seeds_note=seeds_note(summaries[0]),
    )
    write_text(page_at, page)
    write_text(table_at, suite_markdown(summaries))


def encoded(image: Image.Image, form: str, **how: Any) -> bytes:
    """The picture as a file of a form, as Pillow calls it."""
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()
