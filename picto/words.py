"""What an icon shows, in words: its name without the drawing's style, keywords, group and country."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"


@functools.cache
def read_json(path: str) -> dict:
    return json.loads((HERE / path).read_text(encoding="utf-8"))


def plain(text: str) -> str:
    """Lower case, one space between words, no emoji-style colons."""
    return re.sub(r"[\s_:-]+", " ", text.lower()).strip()


def is_left_out(name: str) -> bool:
    return any(part in name for part in read_json("sources.json")["leave_out"])


def concept(name: str) -> str:
    """`cat-face-outline-24` -> `cat face`."""
    words, suffixes = name.split("-"), set(read_json("sources.json")["suffixes"])
    while len(words) > 1 and words[-1] in suffixes:
        words.pop()
    text = plain(" ".join(words))
    return re.sub(r"^flag (for )?", "", text) if re.match(r"^flag (for )?\w", text) else text


@functools.cache
def _emoji() -> tuple[dict[str, dict], dict[str, dict]]:
    """Everything known of an emoji, by its code points and by its plain label."""
    keywords = json.loads((MODULES / "emojilib/dist/emoji-en-US.json").read_text(encoding="utf-8"))
    meta = json.loads((MODULES / "emojibase-data/meta/groups.json").read_text(encoding="utf-8"))
    by_code, by_label = {}, {}
    for entry in json.loads((MODULES / "emojibase-data/en/data.json").read_text(encoding="utf-8")):
        label = plain(entry["label"].replace("flag:", "")).replace("’", "'")
        words = [
            plain(word) for word in keywords.get(entry["emoji"], []) if re.match(r"^[a-z_ -]{3,}$", word)
        ]
        words += [plain(tag) for tag in entry.get("tags", []) if re.match(r"^[a-z -]{3,}$", tag)]
        fact = {
            "name": label,
            "words": list(dict.fromkeys(word for word in words if word != label)),
            "group": meta["groups"].get(str(entry.get("group")), ""),
            "subgroup": meta["subgroups"].get(str(entry.get("subgroup")), ""),
        }
        by_code[entry["hexcode"].lower().replace("-fe0f", "")] = fact
        by_label[label.replace(" ", "")] = fact
        if fact["subgroup"] == "country-flag":  # a country's two letters, from its regional indicators
            letters = "".join(chr(int(code, 16) - 0x1F1E6 + ord("a")) for code in entry["hexcode"].split("-"))
            by_label[f"country:{letters}"] = fact
    return by_code, by_label


def emoji_by_code(code: str) -> dict | None:
    return _emoji()[0].get(code.lower().replace("-fe0f", ""))


def emoji_by_label(label: str) -> dict | None:
    return _emoji()[1].get(plain(label).replace(" ", ""))


def country(name: str) -> dict | None:
    """`fr-4x3` or `fr` -> France."""
    return _emoji()[1].get(f"country:{name.split('-')[0]}")
