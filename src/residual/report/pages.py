"""What all pages share: their templates, and pictures inside them."""

from __future__ import annotations

import base64
import io

import jinja2
from PIL import Image

PAGES = jinja2.Environment(
    loader=jinja2.PackageLoader("residual.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def picture_uri(image: Image.Image, side: int = 64) -> str:
    """The picture as a data URI, at most `side` pixels a side."""
    image = image.convert("RGB")
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
