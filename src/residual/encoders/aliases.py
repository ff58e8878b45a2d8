"""Short names of the paper's models, and what is known of them without loading: see `aliases.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Alias:
    """A name, what it stands for, and what the model is (tests build each and compare).

    Args:
        spec: as `load_encoder` takes it.
        family: name of its family.
        layers, heads, width, output_dim: of its vision tower.
        image_size: side of its images as its checkpoint's preprocessing makes them.
        text: "split", a text tower that can be split too; "encode", one that can't; "" for none.
        licence: of the weights, as far as known; empty where it isn't.
    """

    spec: str
    family: str
    layers: int
    heads: int
    width: int
    output_dim: int
    image_size: int
    text: str
    licence: str


def _read() -> dict[str, Alias]:
    entries = json.loads((Path(__file__).parent / "aliases.json").read_text(encoding="utf-8"))
    return {name: Alias(**entry) for name, entry in entries["models"].items()}


ALIASES = _read()
