"""Names that `load_encoder` takes: those that are short, and the forms of all others; no torch is needed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from residual.errors import unknown_name


@dataclass(frozen=True)
class Alias:
    """What a short name of one of the paper's models stands for, and what is known of it without loading.

    The entries are in `aliases.json`; tests build each model and compare.

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


_HERE = Path(__file__).parent
ALIASES = {
    name: Alias(**entry)
    for name, entry in json.loads((_HERE / "aliases.json").read_text(encoding="utf-8"))["models"].items()
}
EMBEDDED = {"picto": _HERE / "picto"}
FORMS = {
    "open_clip:ARCH/PRETRAINED": "a tag or a file; or open_clip:FOLDER, open_clip:hf-hub:REPO",
    "hf:REPO_OR_FOLDER": "CLIP, SigLIP, AIMv2, BLIP, ViT, DeiT, BEiT or DINO; or hf:REPO@REVISION",
    "timm:NAME": "a VisionTransformer, Eva or Beit; or timm:NAME/FILE, timm:FOLDER, timm:hf-hub:REPO",
    "torchvision:NAME/FILE": "a VisionTransformer of torchvision, its weights as safetensors",
}


def check_encoder_name(name: str) -> None:
    """Find out before the long work whether `load_encoder` takes a name; nothing is loaded.

    Raises:
        ResidualError: it doesn't; the nearest are listed.
    """
    form, _, source = (ALIASES[name].spec if name in ALIASES else name).partition(":")
    if form not in EMBEDDED and not (source and form in {known.partition(":")[0] for known in FORMS}):
        raise unknown_name("encoder", name, [*ALIASES, *FORMS])


def is_listed(name: str) -> bool:
    """Whether an encoder's name is one that the library lists, or the address that such a name stands for,
    with its revision or (as files of before revisions were named have it) without.

    Only such a name is loaded where a file tells it; any other, the user gives.
    """
    specs = {alias.spec for alias in ALIASES.values()}
    return name in ALIASES or name in specs or name in {spec.partition("@")[0] for spec in specs}
