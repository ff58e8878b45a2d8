"""The server: a socket on this machine, the application on it, and a clean end."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import sys
from collections.abc import Callable
from threading import Thread
from typing import Any, NoReturn

from residual.errors import ResidualError
from residual.explore.guard import LOOPBACK
from residual.libraries import library
from residual.workflows.exploration import Exploration

PORT = 6010
_TRIED = 50  # ports, from the first


def new_token() -> str:
    """One that nobody guesses."""
    return secrets.token_urlsafe(24)


def is_loopback(host: str) -> bool:
    """Whether only this machine can ask there."""
    return host in LOOPBACK


def listening(host: str = "127.0.0.1", port: int = PORT) -> socket.socket:
    """A socket on a port, or on the next one that is free; 0 is any.

    Raises:
        ResidualError: none is free, or the host isn't one of this machine.
    """
    for tried in range(port, min(port + _TRIED, 65536)) if port else [0]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # With its protocol named, asyncio sends small answers at once, and not after 40 ms (Nagle).
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name == "posix":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, tried))
            found.listen(128)
        except OSError as error:
            found.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                continue
            why = error.strerror or "it isn't one of this machine"
            raise ResidualError(f"Nothing can be served on {host!r}: {why}.") from error
        return found
    raise ResidualError(f"No port from {port} to {port + _TRIED - 1} is free on {host}.")


def address_of(found: socket.socket, token: str | None = None) -> str:
    """Where a browser finds the page."""
    host, port = found.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")


def open_page(address: str) -> bool:
    """Open it in the browser of a desktop; a terminal's own browser, or one far away, is left alone."""
    import webbrowser

    desktop = os.name == "nt" or sys.platform == "darwin"
    if not desktop and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    if os.environ.get("SSH_CONNECTION"):
        return False
    Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    return True


def serve(
    exploration: Exploration,
    host: str = "127.0.0.1",
    port: int = PORT,
    token: str | None = None,
    *,
    sockets: list[socket.socket] | None = None,
    way: Callable[[ResidualError], str] | None = None,
) -> None:
    """Serve until a signal comes; it comes again when all is closed.

    Args:
        exploration: that answers.
        host, port: see `listening`.
        token: that each request has to bring; needed on every address but the loopback.
        sockets: to listen on, where they are made already.
        way: see `application`.

    Raises:
        ResidualError: another address than the loopback without a token; as `listening`; or starlette and
            uvicorn are missing.
    """
    if token is None and not is_loopback(host):
        raise ResidualError(f"Others can ask at {host!r}: give a token that they have to know (`new_token`).")
    server = server_of(exploration, token, way)
    server.run(sockets=sockets or [listening(host, port)])


def end_now() -> NoReturn:
    """End the process, whatever threads are at: torch can't be left by the usual way while one computes."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def check_libraries() -> Any:
    """`uvicorn`.

    Raises:
        ResidualError: it or starlette is missing.
    """
    library("starlette.applications", "The explorer", "explore")
    return library("uvicorn", "The explorer", "explore")


def server_of(
    exploration: Exploration, token: str | None = None, way: Callable[[ResidualError], str] | None = None
) -> Any:
    """The server itself, a `uvicorn.Server`: it says nothing of its own."""
    uvicorn = check_libraries()
    from residual.explore.app import application

    config = uvicorn.Config(
        application(exploration, token, way), log_config=None, log_level="critical", access_log=False,
        server_header=False, lifespan="off", ws="none", timeout_graceful_shutdown=1, timeout_keep_alive=30,
    )  # fmt: skip
    return uvicorn.Server(config)
