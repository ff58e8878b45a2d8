"""What the suite ships: the description of its datasets, sheets of sprites, and real digits.

Written by `picto/suite.py`; `manifest.json` tells what is on each sheet and the SHA-256 of each file.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent
ASSETS = FOLDER / "assets"
SIDE = 64
COLUMNS = 32  # sprites in a row of a sheet
SHEETS = {
    "openmoji": "openmoji.webp",
    "emojione-v1": "emojione-v1.webp",
    "signs": "signs.webp",
    "glyphs": "glyphs.png",
}


@functools.cache
def description() -> dict[str, Any]:
    """`suite.json`: about, source, licence, sizes, templates and classes of each dataset."""
    return json.loads((FOLDER / "suite.json").read_text(encoding="utf-8"))["datasets"]


@functools.cache
def manifest() -> dict[str, Any]:
    """`manifest.json`: versions, what is held out, file hashes, the sheets' sprites and their hashes."""
    return json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))


@functools.cache
def emoji() -> dict[str, tuple[str, str]]:
    """Each openmoji icon's group and the concept that it is a variant of."""
    icons = json.loads((ASSETS / "emoji.json").read_text(encoding="utf-8"))["icons"]
    return {name: (group, concept) for name, (group, concept) in icons.items()}


def fonts(split: str) -> tuple[str, ...]:
    """The fonts of a split; train and val share theirs."""
    return tuple(manifest()["holdouts"]["fonts"]["test" if split == "test" else "train"])


@functools.lru_cache(maxsize=8192)
def sprite(source: str) -> Image.Image:
    """The sprite `SHEET/NAME`, 64 px: RGBA, or L (the coverage) for glyphs."""
    sheet, name = source.split("/", 1)
    y, x = divmod(_places(sheet)[name], COLUMNS)
    return _sheet(sheet).crop((x * SIDE, y * SIDE, (x + 1) * SIDE, (y + 1) * SIDE))


def real_digits(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images `(n, side, side)` uint8 and labels `(n,)` of "mnist" or "digits"."""
    with np.load(ASSETS / f"{name}.npz", allow_pickle=False) as file:
        return file["images"], file["labels"].astype(np.int64)


@functools.cache
def fingerprint() -> str:
    """What a generated image depends on besides its number: shipped files, this code, the libraries."""
    digest = hashlib.sha256(f"numpy {np.__version__}, pillow {Image.__version__}".encode())
    files = [
        *FOLDER.glob("*.py"),
        *FOLDER.glob("*.json"),
        *ASSETS.iterdir(),
        *(FOLDER.parent / name for name in ("dataset.py", "splits.py")),
    ]
    for path in sorted(files):
        if path.is_file():
            digest.update(path.name.encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@functools.cache
def _places(sheet: str) -> dict[str, int]:
    return {name: i for i, name in enumerate(manifest()["sprites"][sheet])}


@functools.cache
def _sheet(sheet: str) -> Image.Image:
    image = Image.open(ASSETS / SHEETS[sheet])
    image.load()
    return image
