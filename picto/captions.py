"""What is said of each picture: captions in many forms, and keys that tell which pictures a caption fits."""

from __future__ import annotations

import random

from words import read_json

WORD_SHARE = 0.2
GROUP_SHARE = 0.12
COLOUR_SHARE = 0.12


def icon_caption(rng: random.Random, record: dict) -> tuple[str, str]:
    """A caption of an icon, flag or glyph, and its key."""
    forms, name, kind = read_json("captions.json"), record["name"], record["kind"]

    def one(of: str, **parts: str) -> str:
        among = forms[of]
        return rng.choice(among).format(name=parts.pop("name", name), **parts)

    if kind == "glyph":
        return glyph_caption(rng, record, one)
    roll = rng.random()
    group, subgroup = record.get("group", ""), record.get("subgroup", "")
    if kind == "flag":
        return one("flag"), name
    if group and roll < GROUP_SHARE:
        if subgroup in forms["subgroups"] and rng.random() < 0.5:
            return one("icon_group", group=forms["subgroups"][subgroup]), f"subgroup {subgroup}"
        if group in forms["groups"]:
            among = forms["groups"][group]
            return one("icon_group", group=rng.choice(among)), f"group {group}"
    roll = rng.random()
    if record["words"] and roll < WORD_SHARE:
        words = rng.choices(record["words"], k=3)
        return one("icon_words", word=words[0], word2=words[1], word3=words[2]), name
    if record["colour"] and roll > 1 - COLOUR_SHARE:
        return one("icon_colour", colour=record["colour"]), name
    if record.get("alias") and rng.random() < 0.3:
        return one("icon", name=record["alias"]), name
    return one("icon"), name


def glyph_caption(rng: random.Random, record: dict, one) -> tuple[str, str]:
    char = record["name"]
    hand = record["style"] == "hand" and rng.random() < 0.4
    if char.isdigit():
        return one("digit_hand" if hand else "digit"), char
    if hand:
        return one("letter_hand", name=char.lower()), char.lower()
    if rng.random() < 0.25:
        case = "upper" if char.isupper() else "lower"
        return one(f"letter_{case}", name=char.lower()), char.lower()
    return one("letter", name=char.lower()), char.lower()


def scene_caption(rng: random.Random, kind: str, name: str) -> tuple[str, str]:
    """A caption of a scene, and its key: the name itself."""
    forms = read_json("captions.json")
    if kind == "digit_hand" and rng.random() < 0.4:
        kind = "digit"
    if kind == "middle" and rng.random() < 0.3:
        kind = "digit"
    text = rng.choice(forms[kind]).format(name=name)
    return (text.replace("grey", "gray") if rng.random() < 0.5 else text), name


def image_keys(record: dict) -> list[str]:
    """All keys of captions that fit the picture: its name, its group, its subgroup."""
    name = record["name"].lower() if record["kind"] == "glyph" else record["name"]
    return [name, f"group {record.get('group') or name}", f"subgroup {record.get('subgroup') or name}"]
