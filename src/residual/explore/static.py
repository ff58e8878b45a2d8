"""The built files of the page, as they lie in the package."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

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
    every = {each.name: each.read_bytes() for each in folder.iterdir() if _type(each.name)}
    return {name: (data, hashlib.sha256(data).hexdigest()[:32]) for name, data in every.items()}


async def page_file(request: Request) -> Response:
    """A file of the page; asked for again, a browser that has it is told that it may keep it."""
    name = request.path_params["name"] or INDEX
    if name not in built():
        raise HTTPException(404)
    data, digest = built()[name]
    headers = {"ETag": f'"{digest}"', "Cache-Control": "no-cache"}
    if digest in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=_type(name))


def _type(name: str) -> str | None:
    return TYPES.get(f".{name.rpartition('.')[2]}") if "." in name else None
