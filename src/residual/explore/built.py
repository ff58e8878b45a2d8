"""The built files of the page, as they lie in the package."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

# Whatever a machine's own table of types says.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".woff2": "font/woff2",
    ".png": "image/png",
    ".map": "application/json",
}
INDEX = "index.html"


@cache
def built() -> dict[str, tuple[bytes, str]]:
    """Each file by its name: its bytes and their digest."""
    folder = files("residual.explore") / "static"
    if not folder.is_dir():
        return {}
    every = {each.name: each.read_bytes() for each in folder.iterdir() if media_type(each.name)}
    return {name: (data, hashlib.sha256(data).hexdigest()[:32]) for name, data in every.items()}


def media_type(name: str) -> str | None:
    """Of a file by its name; None where it is none of the page's."""
    return TYPES.get(f".{name.rpartition('.')[2]}") if "." in name else None
