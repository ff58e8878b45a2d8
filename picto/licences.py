"""Write Picto's LICENSES.md, and print the table of icon sets for its model card: read from the npm packages.

npm --prefix picto ci && uv run --group picto python picto/licences.py
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
NPM = HERE / "node_modules"
PAGE = HERE.parent / "src/residual/encoders/picto/LICENSES.md"
TITLES = {  # what the text of each licence says of itself, and its SPDX name
    "SIL OPEN FONT LICENSE": "OFL-1.1",
    "APACHE LICENSE": "Apache-2.0",
    "UBUNTU FONT LICEN": "UFL-1.0",
    "MIT LICENSE": "MIT",
    "BITSTREAM VERA FONTS COPYRIGHT": "Bitstream-Vera",
}


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def link(title: str, url: str | None) -> str:
    return f"[{title}]({url})" if url else title


def icon_rows(counts: dict[str, int]) -> list[str]:
    """Set, pictures, licence and author of each icon set, as its own metadata says."""
    sets, rows = read(NPM / "@iconify/json/collections.json"), []
    for prefix, count in counts.items():
        about = sets[prefix]
        licence, author = about["license"], about["author"]
        cells = [f"`{prefix}`", about["name"], f"{count:,}"]
        cells += [link(licence["spdx"], licence.get("url")), link(author["name"], author.get("url"))]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def font_row(font: str) -> tuple[str, str]:
    """SPDX name, by the licence's text (one package.json is wrong), and the table's row."""
    folder = NPM / "@fontsource" / font
    text = (folder / "LICENSE").read_text(encoding="utf-8").upper()
    spdx = next((name for title, name in TITLES.items() if title in text), None)
    if spdx is None:
        raise ValueError(f"{font}: its LICENSE is none of {', '.join(TITLES.values())}")
    said = read(folder / "metadata.json")["license"].get("attribution") or ""
    line = re.split(r"\s\S+\.ttf: ", said)[0].strip() or "no copyright line in the package"
    line = line.replace("|", ", ")  # a table's cell
    return spdx, f"| `{font}` | {read(folder / 'package.json')['version']} | {spdx} | {line} |"


def page() -> str:
    manifest, versions = read(HERE / "corpus-manifest.json"), read(HERE / "package.json")["dependencies"]
    icons = "\n".join(icon_rows(manifest["icon_sets"]))
    fonts = [font_row(font) for font in manifest["fonts"]]
    kinds = ", ".join(f"{count} {name}" for name, count in Counter(name for name, _ in fonts).most_common())
    rows = "\n".join(row for _, row in fonts)
    return f"""# Sources and licences of Picto

Written by `picto/licences.py` from the metadata of the packages. `config.json`, `model.safetensors` and the
tokenizer were made by this project with its own scripts (`picto/`), starting from random numbers, and are
given under the MIT licence, as the library. Their knowledge comes from the pictures and words below.

**Changes made.** Every picture was drawn at 64 px, packed as WebP, and augmented at each step of the
training: turned, bent, tinted, put on other grounds, blurred, made noisy. Some were put together into scenes.
The weights were learnt from them. No picture, icon file or font file is in this folder.

## Icons: {sum(manifest["icon_sets"].values()):,} drawings of {len(manifest["icon_sets"])} sets
From npm `@iconify/json` {versions["@iconify/json"]}; set, author and licence as its `collections.json` says.
Where a licence has no link of its own, its text is the one known by its SPDX name: https://spdx.org/licenses/.

| set | name | pictures | licence | author |
| --- | --- | --- | --- | --- |
{icons}

`game-icons` gathers the work of several artists: see the link of its licence.

## Fonts: {len(fonts)}
The letters A-Z, a-z and digits 0-9 of one weight of each, from npm packages `@fontsource/NAME`:
{kinds}. The texts: [OFL-1.1](https://openfontlicense.org),
[Apache-2.0](https://www.apache.org/licenses/LICENSE-2.0), [UFL-1.0](https://ubuntu.com/legal/font-licence),
[MIT](https://spdx.org/licenses/MIT.html), [Bitstream-Vera](https://spdx.org/licenses/Bitstream-Vera.html).

| font | package version | licence | copyright |
| --- | --- | --- | --- |
{rows}

## Words
- Keywords of emoji: npm `emojilib` {versions["emojilib"]} (MIT, Mu-An Chiou, https://github.com/muan/emojilib).
- Labels, tags, groups of emoji: npm `emojibase-data` {versions["emojibase-data"]} (MIT, Miles Johnson,
  https://github.com/milesj/emojibase).
- Names of other icons: those of the sets above.
- Caption templates and words of scenes: own (`picto/captions.json`, `picto/scenes/words.json`), MIT.

## Scenes: 114,000 pictures
Drawn by `picto/scenes/` (own, MIT), some with the icons and glyphs above.
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print("\n".join(icon_rows(read(HERE / "corpus-manifest.json")["icon_sets"])))
