"""A real browser for tests: the system's Chromium, pages that are watched, and what axe finds on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pytest

from residual.explore.serving import address_of, listening, server_of
from residual.workflows.exploration import Exploration

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
DESKTOP, PHONE = (1280, 860), (390, 844)
GRAVE = ("serious", "critical")
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


def chromium() -> str:
    """Where the system's Chromium is; without it, or without Playwright, a test is skipped."""
    pytest.importorskip("playwright.sync_api", reason="Playwright isn't installed")
    for name in NAMES:
        if found := shutil.which(name):
            return found
    pytest.skip(f"there is no Chromium on the PATH ({', '.join(NAMES)})")


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a window, asking nothing of any other machine by itself."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=path, args=list(_FLAGS))
        try:
            yield found
        finally:
            found.close()


@contextmanager
def served(exploration: Exploration, token: str | None = None) -> Iterator[str]:
    """The explorer on a real server in a thread of this process: its address."""
    found = listening("127.0.0.1", 0)
    server = server_of(exploration, token)
    thread = Thread(target=server.run, kwargs={"sockets": [found]}, name="served", daemon=True)
    thread.start()
    try:
        yield address_of(found, token)
    finally:
        server.should_exit = True
        thread.join(30)
        found.close()
    assert not thread.is_alive()


@contextmanager
def watched(
    browser: Any, size: tuple[int, int] = DESKTOP, dark: bool = False, scale: float = 1.0, still: bool = True
) -> Iterator[Any]:
    """A page in a profile of its own. What it shouldn't do fails the test: an error on the console or of a
    script, or a request to any host but 127.0.0.1. What a test expects of these it takes out of
    `page.troubles`.
    """
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, device_scale_factor=scale, locale="en-GB",
        color_scheme="dark" if dark else "light", has_touch=size[0] < 600, accept_downloads=True,
        reduced_motion="reduce" if still else "no-preference",
    )  # fmt: skip
    try:
        page = context.new_page()
        page.set_default_timeout(20_000)
        troubles = page.troubles = []
        page.on("console", lambda said: said.type == "error" and troubles.append(f"console: {said.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("request", lambda request: _outside(request.url) and troubles.append(f"asks {request.url}"))
        yield page
        print(f"{page.url}\n{page.inner_text('body')}")  # shown where the test fails
    finally:
        context.close()
    assert troubles == []


def asked(address: str, what: str, body: Any = None) -> Any:
    """What the server answers: `about`, `moves`, `turn`…"""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"{address}api/{what}", data, {"Content-Type": "application/json"})) as answer:
        return json.load(answer)


def _outside(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme not in ("data", "blob", "file", "about") and parts.hostname != "127.0.0.1"


def faults(page: Any) -> list[str]:
    """What axe calls serious or critical on the page as it is now: the rule, and where."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe isn't installed").Axe()
    found = axe.run(page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}) at {[' '.join(node['target']) for node in each['nodes'][:5]]}"
        for each in found
        if each["impact"] in GRAVE
    ]
