"""The scripts of picto/ are no package: tests find them on the path, as a run of a script does."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "picto"))


def _drawing(seed: int, coloured: bool) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.new("RGBA", (64, 64))
    colour = (*(int(v) for v in rng.integers(60, 255, 3)), 255) if coloured else (0, 0, 0, 255)
    a, b, c, d = (int(v) for v in rng.integers(4, 28, 4))
    ImageDraw.Draw(image).ellipse((a, b, 63 - c, 63 - d), fill=colour)
    return image


def _icon(kind: str, style: str, name: str, **more) -> dict:
    blank = {"words": [], "group": "", "colour": "", "ink": style == "line"}
    return {"kind": kind, "set": f"a-{style}-set", "style": style, "name": name} | blank | more


def _records() -> list[dict]:
    dog = {
        "words": ["pet", "animal"],
        "group": "animals-nature",
        "subgroup": "animal-mammal",
        "alias": "dog face",
    }
    records = [
        _icon("icon", "emoji", name, **dog, colour="red") | {"set": f"emoji-{number}"}
        for name in ("dog", "cat", "bicycle")
        for number in "1234"
    ]
    records += [
        _icon("flag", "flags", name, group="flags", subgroup="country-flag") for name in ("chad", "peru")
    ]
    records += [_icon("icon", "colour", "lamp", words=["light"]), _icon("icon", "line", "anchor")]
    for style in ("hand", "print"):
        glyph = {"kind": "glyph", "set": f"a-{style}-font", "style": style, "ink": True}
        records += [glyph | {"name": char} for char in "0123456789Aa"]
    return records


@pytest.fixture(scope="session")
def tiny_build(tmp_path_factory) -> Path:
    """A build folder as corpus.py and tokenizer.py leave it, with 40 pictures of every style."""
    build = tmp_path_factory.mktemp("picto") / "build"
    (build / "corpus").mkdir(parents=True)
    records, packed = _records(), b""
    for seed, record in enumerate(records):
        buffer = io.BytesIO()
        _drawing(seed, not record["ink"]).save(buffer, "WEBP", quality=80, alpha_quality=90)
        record |= {"at": len(packed), "bytes": buffer.tell()}
        packed += buffer.getvalue()
    (build / "corpus/pictures.bin").write_bytes(packed)
    (build / "corpus/pictures.json.gz").write_bytes(gzip.compress(json.dumps(records).encode()))
    shipped = ROOT / "src/residual/encoders/picto"
    (build / "tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shipped / name, build / "tokenizer" / name)
    return build


@pytest.fixture
def build(tiny_build, monkeypatch) -> Path:
    """The tiny build folder, in the place of picto/build."""
    import packed
    import train

    monkeypatch.setattr(packed, "BUILD", tiny_build)
    monkeypatch.setattr(train, "BUILD", tiny_build)
    return tiny_build
