"""How fast the explorer answers, measured in a browser: its first view, and what is dragged or switched.

    python benchmarks/explore.py --out benchmarks/results/explore.json --folder /tmp/explore

Everything in one run: `--samples` pictures of coloured noise in `--classes` folders are encoded by Picto
(once: what is in `--folder` is used again), `residual explore` serves the store, and Chromium opens the page
and drags with the mouse. "first view" is from the call for the page to the frame that shows the heads'
scores: of a server that has just begun, without anything computed before, and again. A drag's answer is timed
in the page, from the newest move that a question tells of to the frame after its answer is drawn: server,
network and drawing are all in it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import parser_of, run_sections, spread
from PIL import Image
from playwright.sync_api import Page, sync_playwright

RESIDUAL = [sys.executable, "-m", "residual"]
MOVES, EVERY = 120, 16  # of the mouse in a drag, and milliseconds between them

SHOWN = ".heads-grid:not(.waiting) .cell:not(.empty):not(.none)"
# Notes when the first view is seen; and how long each question about a turned encoder took, and the server.
WATCH = """
const look = () => {
  if (!document.querySelector("SHOWN")) return requestAnimationFrame(look);
  requestAnimationFrame(() => setTimeout(() => window.shown = performance.now()));
};
look();
window.turned = []; let moved = null; const plain = window.fetch;
const note = (event) => { moved = event.timeStamp };
addEventListener("input", note, true); addEventListener("click", note, true);
window.fetch = async (...given) => {
  const since = moved;
  const response = await plain(...given);
  if (!String(given[0]).startsWith("api/turn") || since === null) return response;
  const told = await response.clone().json();
  requestAnimationFrame(() => setTimeout(() => turned.push([performance.now() - since, told.milliseconds])));
  return response;
};
""".replace("SHOWN", SHOWN)


def pictures(folder: Path, samples: int, classes: int) -> Path:
    """`samples` pictures in `classes` folders, each class with a colour of its own."""
    place = folder / f"pictures-{samples}-{classes}"
    if not place.is_dir():
        random = np.random.default_rng(0)
        colours = random.uniform(40, 215, (classes, 3))
        for sample in range(
            samples + 2 * classes
        ):  # one a class for val, and for test, which aren't looked at
            label = sample % classes
            split = "train" if sample < samples else ("val", "test")[(sample - samples) // classes]
            path = place / split / f"colour {label}" / f"{sample:06}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = random.normal(colours[label], 60, (64, 64, 3))
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path, compress_level=1)
    return place


def store(options: argparse.Namespace) -> tuple[Path, str]:
    """The store, and the dataset that it is of."""
    dataset = f"folder:{pictures(options.folder, options.samples, options.classes)}"
    place = options.folder / f"store-{options.samples}-{options.classes}"
    command = [*RESIDUAL, "encode", "--dataset", dataset, "--split", "train", "--out", str(place), "--quiet"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return place, dataset


@contextmanager
def served(options: argparse.Namespace) -> Generator[str]:
    """The address of a server that has just begun."""
    place, dataset = store(options)
    command = [*RESIDUAL, "explore", str(place), "--dataset", dataset, "--no-open", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            lines = server.stdout or ()
            yield next(found[0] for line in lines if (found := re.search(r"http://\S+", line)))
        finally:
            server.terminate()


@contextmanager
def opened(options: argparse.Namespace, address: str) -> Generator[Page]:
    """A browser with nothing remembered, before it calls for the page."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 900}, base_url=address)
            page.add_init_script(WATCH)
            yield page
        finally:
            browser.close()


def first_view(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the call for the page to its heads."""
    took = []
    with served(options) as address:
        for _ in range(1 + options.repeats):
            with opened(options, address) as page:
                page.goto("./", wait_until="commit")
                page.wait_for_selector(SHOWN)
                page.wait_for_timeout(100)
                took.append(page.evaluate("shown") / 1000)
    return {"first": took[0], "again": spread(took[1:])}


def turning(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds until an answer is seen: of weights of components and units, dragged, and of switches."""
    found: dict[str, Any] = {"samples": options.samples, "classes": options.classes}
    with served(options) as address, opened(options, address) as page:
        for unit in options.units:
            page.goto(f"./?{unit}#view=turn&unit={unit}")  # another search: the page is loaded anew
            page.wait_for_selector(".lambdas input")
            page.wait_for_selector(".confusion")
            page.wait_for_timeout(1000)
            sliders = {"component": ".lambdas input >> nth=0", "unit": ".slider input >> nth=0"}
            found[unit] = {name: dragged(page, slider) for name, slider in sliders.items()}
        found["components"] = components(page)
        found["switch"] = switched(page)
    return found


def dragged(page: Page, slider: str) -> dict[str, Any]:
    place = page.locator(slider)
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    if box is None:
        raise RuntimeError(f"{slider} isn't seen")
    middle = box["y"] + box["height"] / 2
    page.evaluate("turned.length = 0")
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    for step in range(MOVES):
        share = 0.5 + 0.4 * np.sin(step / 9)
        page.mouse.move(box["x"] + share * box["width"], middle)
        time.sleep(EVERY / 1000)
    page.mouse.up()
    return answered(page)


def switched(page: Page) -> dict[str, Any]:
    page.evaluate("turned.length = 0")
    cells = page.locator(".heads-grid .cell:not(.none)")
    for place in range(0, cells.count(), 4):
        cells.nth(place).click()
        page.wait_for_timeout(150)
    return answered(page)


def answered(page: Page) -> dict[str, Any]:
    page.wait_for_timeout(500)
    times = np.array(page.evaluate("turned"), float)
    seen, server = times[:, 0], times[:, 1]
    return {
        "answers": len(times),
        "milliseconds": spread(seen.tolist()) | {"of 95 %": float(np.quantile(seen, 0.95))},
        "server": spread(server.tolist()),
    }


def components(page: Page) -> int:
    """How many there are in all units."""
    fetched = "async (address) => (await fetch(address)).json()"
    units = [each["unit"] for each in page.evaluate(fetched, "api/heads?score=norm")["units"]]
    return sum(len(page.evaluate(fetched, f"api/unit?unit={unit}")["spectrum"]) for unit in units)


SECTIONS = {"first_view": first_view, "turning": turning}


def main() -> None:
    parser = parser_of(__doc__, SECTIONS)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--units", nargs="+", default=["7.1", "mlp.6"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    run_sections(options, SECTIONS, options, encoder="picto")


if __name__ == "__main__":
    main()
