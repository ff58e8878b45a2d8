"""The application: the page's files, and answers as JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from residual.devices import cores
from residual.errors import ResidualError
from residual.explore.asking import ASKED, POSTED, arguments
from residual.explore.built import INDEX, built, media_type
from residual.explore.guard import Guard
from residual.explore.workers import Workers
from residual.files import plain_number, without_nan
from residual.workflows.exploration import Exploration
from residual.workflows.exploration.bounded import Bounded

log = logging.getLogger("residual.explore")

_ANSWERS = 2**27  # bytes of answers that are kept
_SMALLEST = 1024  # bytes that are worth packing
_WRONG = "This is a fault of residual; what went wrong is written where the server runs."
Way = Callable[[ResidualError], str]


def application(exploration: Exploration, token: str | None = None, way: Way | None = None) -> ASGIApp:
    """The explorer as an ASGI application, which works under any prefix.

    Args:
        exploration: that answers.
        token: see `Guard`.
        way: the way out of an error, where whoever serves has other words for it than the error's own.
    """
    api = _Api(exploration, way or (lambda error: error.hint))
    routes = [
        Route("/api/{name}", api.answer, methods=["GET", "POST"]),
        Route("/{name:path}", _page_file, methods=["GET"]),
    ]
    told = {HTTPException: _not_there, Exception: _fault}
    packed = Middleware(GZipMiddleware, minimum_size=_SMALLEST, compresslevel=5)
    return Guard(Starlette(routes=routes, exception_handlers=told, middleware=[packed]), token)


class _Api:
    """Answers, each made by a thread, and kept where it is asked for by its address alone."""

    def __init__(self, exploration: Exploration, way: Way):
        self.exploration, self.way = exploration, way
        self.kept: Bounded[tuple[str, bytes]] = Bounded(_ANSWERS, lambda answer: len(answer[1]))
        self.turning, self.others = Workers(1, "turning"), Workers(cores() + 2, "answering")

    async def answer(self, request: Request) -> Response:
        """Any answer of the exploration."""
        name, posted = request.path_params["name"], request.method == "POST"
        method = getattr(self.exploration, name, None)
        if name not in (POSTED if posted else ASKED) or method is None:
            raise HTTPException(404)
        query = [(key, value) for key, value in request.query_params.multi_items() if key != "token"]
        try:
            if posted:
                body = await request.body()
                held = body if name == "drop" else _state(body)
                how = arguments(method, query)
                workers = self.turning if name == "turn" else self.others
                made = await workers.run(lambda: _packed(method(held, **how)))
            else:
                made = await self._asked(name, method, query)
        except ResidualError as error:
            return _json(400, {"error": error.message, "hint": self.way(error) or None})
        except ClientDisconnect:
            return _json(413, {"error": "What came is too large, or was cut off.", "hint": None})
        media, content, *names = made
        headers = {"Cache-Control": "no-store"}
        if names:
            headers["Content-Disposition"] = f'attachment; filename="{names[0]}"'
        return Response(content, media_type=media, headers=headers)

    async def _asked(
        self, name: str, method: Callable[..., Any], query: list[tuple[str, str]]
    ) -> tuple[Any, ...]:
        key = (name, *sorted(query))
        if key in self.kept:
            return self.kept.get(key, lambda: ("", b""))
        how = arguments(method, query)
        made = await self.others.run(lambda: _packed(method(**how)))
        self.kept.put(key, made)
        return made


def _packed(made: Any) -> tuple[Any, ...]:
    """An answer as its media type, its bytes, and the name of a file if it is to be saved."""
    if isinstance(made, tuple):
        return made
    return "application/json", to_json(made)


def to_json(value: Any) -> bytes:
    """As JSON; what is no finite number is null."""
    try:
        text = json.dumps(value, default=plain_number, allow_nan=False, ensure_ascii=False)
    except ValueError:
        text = json.dumps(without_nan(value), default=plain_number, allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")


def _state(body: bytes) -> dict[str, Any]:
    try:
        held = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        held = None
    if not isinstance(held, dict):
        raise ResidualError("What is turned comes as a JSON object.")
    return held


def _json(status: int, value: Any) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(to_json(value), status, headers, "application/json")


async def _page_file(request: Request) -> Response:
    """A file of the page; asked for again, a browser that has it is told that it may keep it."""
    name = request.path_params["name"] or INDEX
    if name not in built():
        raise HTTPException(404)
    data, digest = built()[name]
    headers = {"ETag": f'"{digest}"', "Cache-Control": "no-cache"}
    if digest in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=media_type(name))


async def _not_there(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _json(status, {"error": f"There is nothing at {request.url.path[:80]!r}.", "hint": None})


async def _fault(request: Request, error: Exception) -> Response:
    log.error("An answer failed: %s", request.url.path, exc_info=error)
    return _json(500, {"error": _WRONG, "hint": None})
