"""Pictures of the explorer's views, as it is today: the `explore-*.png` of docs/explore.md and the README.

    python docs/figures/explore.py --folder /tmp/explorer

Two stores and an adapter are made by the command line (once: what is in `--folder` is used again),
`residual explore` serves them, and the system's Chromium opens each state by its address.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from residual import load_dataset

HERE = Path(__file__).parent
RESIDUAL = [sys.executable, "-m", "residual"]
DATASET = "emoji-concepts"
COLOURS = 256
WAITING = ".skeleton, .waiting, [aria-busy=true]"


@dataclass(frozen=True)
class Shot:
    """One picture: its name, what stands behind "#" in the address, and how it is looked at: size and place
    in pixels, in the dark or not, and whether a picture is dropped first.
    """

    name: str
    state: str
    size: tuple[int, int] = (1280, 900)
    dark: bool = False
    drop: bool = False
    scrolled: int = 0


SHOTS = (
    Shot("heads", ""),
    Shot("text", "text=red"),
    Shot("unit", "unit=0.4", (1280, 1100), scrolled=1180),
    Shot("turn", "view=turn&unit=6.5&off=7.5&lam=6.5:0:0", (1280, 1600)),
    Shot("pictures", "view=pictures&picture=12", (1280, 1140)),
    Shot("drop", "view=drop", (1280, 1140), drop=True),
    Shot("stores", "view=stores"),
    Shot("phone", "text=red", (390, 844)),
    Shot("dark", "view=turn&unit=6.5&off=7.5&lam=6.5:0:0", dark=True),
)


def made(folder: Path) -> list[str]:
    """The arguments of `residual explore`: of two stores, of two styles of drawing, and an adapter."""
    folder.mkdir(parents=True, exist_ok=True)
    stores = [folder / f"{DATASET}-{split}" for split in ("test", "val")]
    commands = {
        store: ["encode", "--dataset", DATASET, "--split", store.name.rpartition("-")[2]] for store in stores
    }
    adapter = folder / f"{DATASET}-adapter"
    commands[adapter] = ["train", "--dataset", DATASET, "--method", "residual_star", "--limit", "500"]
    for place, command in commands.items():
        if not place.exists():
            subprocess.run([*RESIDUAL, *command, "--out", str(place), "--quiet"], check=True)
    return [*map(str, stores), "--adapter", str(adapter)]


@contextmanager
def served(options: list[str]) -> Generator[str]:
    """The address of the explorer."""
    command = [*RESIDUAL, "explore", *options, "--no-open", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield next(found[0] for line in server.stdout or () if (found := re.search(r"http://\S+", line)))
        finally:
            server.terminate()


def take(browser: Browser, address: str, shot: Shot, dropped: Path) -> Image.Image:
    """The view when nothing on it is waited for any more."""
    width, height = shot.size
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme="dark" if shot.dark else "light",
        reduced_motion="reduce",
    )
    try:
        page.goto(f"{address.rstrip('/')}/#{shot.state}")
        if shot.drop:
            page.locator("input[type=file]").set_input_files(dropped)
        page.wait_for_load_state("networkidle")
        page.wait_for_function(f"!document.querySelector({WAITING!r})")
        page.wait_for_timeout(700)
        page.wait_for_load_state("networkidle")
        page.evaluate(f"scrollTo(0, {shot.scrolled})")
        page.wait_for_timeout(300)
        return Image.open(io.BytesIO(page.screenshot()))
    finally:
        page.close()


def main() -> None:
    """Take all pictures, or those named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [shot.name for shot in SHOTS]
    parser.add_argument("--folder", type=Path, required=True, help="for stores and the adapter")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--shots", nargs="+", choices=names, default=names)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    explored, dropped = made(options.folder), options.folder / "dropped.png"
    load_dataset(DATASET, "train")[0][0].save(dropped)
    with served(explored) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        for shot in SHOTS:
            if shot.name in options.shots:
                seen = take(browser, address, shot, dropped).convert("RGB").quantize(COLOURS, kmeans=2)
                seen.save(options.out / f"explore-{shot.name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
