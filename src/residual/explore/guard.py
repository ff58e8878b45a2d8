"""Who may ask: pages of this server alone, on this machine or with the token.

A page that another site opened could ask a server on 127.0.0.1, by a name of its own that leads there (DNS
rebinding) or by a form. So the name that was asked for, the origin and the size of what comes are checked
before anything is read, and nothing is ever allowed to another origin.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from residual.workflows.exploration.drops import MOST_BYTES

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Around an application: refuses what doesn't come from its own page, and says to the browser what the
    page may do.

    Args:
        app: the application.
        token: that each request of data has to bring, as `?token=…` or `Authorization: Bearer …`; None on the
            loopback, where the name of the host is checked in its place.
    """

    def __init__(self, app: ASGIApp, token: str | None = None):
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, then pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        answered = _with_headers(send)
        if (refusal := self._refusal(scope, Headers(scope=scope))) is not None:
            await _refuse(answered, *refusal)
            return
        await self.app(scope, _limited(receive), answered)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Status and sentence, where a request is none of ours."""
        host = headers.get("host", "")
        if self.token is None and _name(host) not in LOOPBACK:
            return 403, f"This page is for this machine: ask for it by localhost, not by {host[:80]!r}."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "Another page asked for this."
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and is_data(scope):
            return 403, "Another page asked for this."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "Nothing but GET and POST is answered."
        if scope["method"] == "POST" and origin is None and headers.get("sec-fetch-site", "none") != "none":
            return 403, "A page that asks has to tell its origin."
        if self.token is not None and is_data(scope) and not self._knows(scope, headers):
            return 401, "The token is missing, or another: open the whole address that was printed."
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            return 413, f"At most {MOST_BYTES // 2**20} MB are taken."
        return None

    def _knows(self, scope: Scope, headers: Headers) -> bool:
        """Whether a request brings the token."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return hmac.compare_digest(given.encode(), (self.token or "").encode())


def is_data(scope: Scope) -> bool:
    """Whether data is asked for, and not a file of the page, which anyone may have."""
    return "/api/" in scope["path"]


def _name(host: str) -> str:
    """Of a host, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _with_headers(send: Send) -> Send:
    async def answered(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
        await send(message)

    return answered


def _limited(receive: Receive) -> Callable[[], Awaitable[Message]]:
    """What comes without telling its length is cut off, too."""
    held = 0

    async def some() -> Message:
        nonlocal held
        message = await receive()
        held += len(message.get("body", b""))
        if held > MOST_BYTES:
            return {"type": "http.disconnect"}
        return message

    return some


async def _refuse(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"error": sentence, "hint": None}).encode()
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
