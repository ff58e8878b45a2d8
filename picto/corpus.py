"""Picto's corpus: every icon and glyph it learns from, drawn once at 64 px, packed with what is known of it.

`build/corpus/pictures.bin` holds one WebP picture after another, `build/corpus/pictures.json.gz` a record for
each: kind, set, concept, words, group, main colour and place in the file. `corpus-manifest.json` (committed)
names the sets, versions, counts and the hash of every drawing, so that a test can show that the offline suite
shares none.

    uv run --group picto python picto/corpus.py
"""

from __future__ import annotations

import argparse
import colorsys
import gzip
import hashlib
import io
import json
import string
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import words
from PIL import Image
from render import icon_svg, pixel_hash, render_glyph, render_icon

SIZE = 64
GLYPHS = string.ascii_uppercase + string.ascii_lowercase + string.digits
BUILD = words.HERE / "build" / "corpus"
HUES = [(0.03, "red"), (0.1, "orange"), (0.18, "yellow"), (0.45, "green"), (0.54, "cyan"), (0.69, "blue"),
        (0.8, "purple"), (0.94, "pink"), (1.01, "red")]  # fmt: skip


def main_colour(pixels: np.ndarray) -> str:
    """The colour of most of the drawing, or "" where none leads."""
    inside = pixels[pixels[..., 3] > 127][:, :3][::7] / 255
    names: Counter[str] = Counter()
    for red, green, blue in inside:
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        if value < 0.2:
            names["black"] += 1
        elif saturation < 0.15:
            names["white" if value > 0.85 else "grey"] += 1
        else:
            name = next(name for end, name in HUES if hue < end)
            names["brown" if name in ("orange", "red") and value < 0.65 else name] += 1
    top = names.most_common(1)
    return top[0][0] if top and top[0][1] > 0.55 * len(inside) else ""


def held_fonts() -> set[str]:
    return {font for fonts in words.read_json("holdouts.json")["fonts"].values() for font in fonts}


def refuse_held_out(icon_set: str = "", font: str = "") -> None:
    """The offline suite's sets and fonts are no sources: raise where one is named."""
    if icon_set in words.read_json("holdouts.json")["icon_sets"]:
        raise ValueError(f"icon set {icon_set} is held out (holdouts.json) and can't be a source")
    if font in held_fonts():
        raise ValueError(f"font {font} is held out (holdouts.json) and can't be a source")


def icon_records(kind: str, prefix: str, most: int | None) -> list[tuple[dict, bytes, str]]:
    """Each icon of a set that isn't left out: its record, its WebP bytes, the hash of its pixels."""
    refuse_held_out(icon_set=prefix)
    icon_set = json.loads((words.MODULES / f"@iconify/json/json/{prefix}.json").read_text(encoding="utf-8"))
    codes = {name: code for code, name in icon_set.get("chars", {}).items()}
    names = [
        n for n in icon_set["icons"] if not words.is_left_out(n) and not icon_set["icons"][n].get("hidden")
    ]
    if most and len(names) > most:  # spread over the alphabet, the same every time
        order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
        names = sorted(order[:most])
    made = []
    for name in names:
        fact = words.country(name) if kind == "flags" else None
        if kind in ("emoji", "line"):
            fact = words.emoji_by_code(codes.get(name, "-")) or words.emoji_by_label(words.concept(name))
        if kind == "flags" and fact is None:
            continue
        record = {
            "kind": "icon",
            "set": prefix,
            "style": kind,
            "name": words.concept(name),
            "words": [],
            "group": "",
        }
        if fact:
            record |= {"words": fact["words"][:8], "group": fact["group"], "subgroup": fact["subgroup"]}
            if kind in ("emoji", "flags"):
                record["alias"], record["name"] = record["name"], fact["name"]
            if fact["subgroup"] == "country-flag" and kind in ("emoji", "flags"):
                record["kind"] = "flag"
        elif kind != "line":
            category = next(
                (c for c, members in icon_set.get("categories", {}).items() if name in members), ""
            )
            record["words"] = [words.plain(category)] if category else []
        pixels = render_icon(icon_svg(icon_set, name), SIZE)
        if (pixels[..., 3] > 30).mean() < 0.02:
            continue
        record["colour"] = main_colour(pixels) if kind in ("emoji", "colour") else ""
        record["ink"] = bool((pixels[..., :3] == 0).all())  # one colour: painted anew at every step
        made.append((record, encode(pixels), pixel_hash(pixels)))
    return made


def glyph_records(font: str, handwritten: bool) -> list[tuple[dict, bytes, str]]:
    """Each letter and digit of a font: its record, its WebP bytes, the hash of its coverage."""
    refuse_held_out(font=font)
    path = words.MODULES / f"@fontsource/{font}/files/{font}-latin-400-normal.woff2"
    made = []
    for char in GLYPHS:
        alpha = render_glyph(path, char, SIZE)
        pixels = np.zeros((SIZE, SIZE, 4), np.uint8)
        pixels[..., 3] = alpha
        if (alpha > 30).mean() < 0.005:
            continue
        record = {
            "kind": "glyph",
            "set": font,
            "style": "hand" if handwritten else "print",
            "name": char,
            "ink": True,
        }
        made.append((record, encode(pixels), pixel_hash(alpha)))
    return made


def encode(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=80, alpha_quality=90, method=4)
    return buffer.getvalue()


def job(task: tuple) -> list[tuple[dict, bytes, str]]:
    return icon_records(*task[1:]) if task[0] == "icons" else glyph_records(*task[1:])


def build(workers: int) -> None:
    """Draw and pack everything; write the manifest."""
    sources = words.read_json("sources.json")
    tasks: list[tuple] = []
    for kind in ("emoji", "flags", "colour", "line"):
        for prefix in sources[kind]:
            refuse_held_out(icon_set=prefix)
            tasks.append(("icons", kind, prefix, sources["most_per_line_set"] if kind == "line" else None))
    held = held_fonts()
    fonts = sorted(path.name for path in (words.MODULES / "@fontsource").iterdir() if path.name not in held)
    tasks += [("glyphs", font, font in sources["fonts_handwritten"]) for font in fonts]

    BUILD.mkdir(parents=True, exist_ok=True)
    records, hashes, at = [], {"icons": set(), "glyphs": set()}, 0
    with ProcessPoolExecutor(workers) as pool, (BUILD / "pictures.bin").open("wb") as out:
        for task, made in zip(tasks, pool.map(job, tasks), strict=True):
            for record, data, digest in made:
                out.write(data)
                records.append(record | {"at": at, "bytes": len(data)})
                at += len(data)
                hashes[task[0]].add(digest)
            print(
                f"{task[0]:7s}{task[1 if task[0] == 'glyphs' else 2]:32s}{len(made):6d}{at / 2**20:8.1f} MB",
                flush=True,
            )
    (BUILD / "pictures.json.gz").write_bytes(gzip.compress(json.dumps(records).encode(), mtime=0))
    packages = json.loads((words.HERE / "package.json").read_text(encoding="utf-8"))["dependencies"]
    manifest = {
        "icon_sets": dict(sorted(Counter(r["set"] for r in records if r["kind"] != "glyph").items())),
        "fonts": fonts,
        "pictures": len(records),
        "packages": {name: packages[name] for name in sorted(packages) if "fontsource" not in name},
        "hashes": {kind: sorted(found) for kind, found in hashes.items()},
    }
    (words.HERE / "corpus-manifest.json").write_text(json.dumps(manifest, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    build(parser.parse_args().workers)
