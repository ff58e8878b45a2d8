"""Names that `load_encoder` takes: those that are short, and the forms of all others; no torch is needed."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from residual.errors import ResidualError, unknown_name


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
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?")
# How architectures of open_clip and models of timm are called.
_OPEN_CLIP = re.compile(
    r"(ViT|EVA\d*|RN\d+|PE|ViTamin|MobileCLIP\d*|coca|convnext|nllb|xlm|roberta|mt5)([-_x].*)?"
)
_TIMM = re.compile(r"(vit|deit3?|eva\d*|beit(v2)?|dinov?\d*|aimv2|samvit|flexivit|naflexvit)_[\w.]+")


def encoder_name(name: str) -> str:
    """The whole name of what a user calls `name`, before the long work; nothing is loaded. OWNER/NAME is a
    repository of transformers (`hf:`), if no folder OWNER is here, and it is none of timm or open_clip.

    Only what a user gives comes here: what a file names is loaded by its very name, if it `is_listed`.

    Raises:
        ResidualError: no encoder is called so, or it may be one or another; the nearest are listed.

    Example:
        >>> from residual.encoders.names import encoder_name
        >>> encoder_name("picto"), encoder_name("openai/clip-vit-base-patch32")
        ('picto', 'hf:openai/clip-vit-base-patch32')
    """
    form, _, source = name.partition(":")
    if name in ALIASES or (source and form in {known.partition(":")[0] for known in FORMS}):
        return name
    owner, _, rest = name.partition("/")
    if os.path.isdir(name):
        meant = [f"{form}:{name}" for form in ("hf", "open_clip", "timm")]
    elif owner == "timm" and rest:
        meant = [f"timm:{rest}", f"open_clip:hf-hub:{name}"]
    elif _OPEN_CLIP.fullmatch(owner):
        meant = [f"open_clip:{owner}/{rest or 'TAG'}"]
    elif _TIMM.fullmatch(name):
        meant = [f"timm:{name}"]
    elif not _REPOSITORY.fullmatch(name):
        raise unknown_name("encoder", name, [*ALIASES, *FORMS])
    elif os.path.isdir(owner):
        meant = [f"hf:{name}"]
    else:
        return f"hf:{name}"
    raise ResidualError(f"Unknown encoder {name!r}.", f"Did you mean {' or '.join(map(repr, meant))}?")


def is_listed(name: str) -> bool:
    """Whether an encoder's name is one that the library lists, or the address that such a name stands for,
    with its revision or (as files of before revisions were named have it) without.

    Only such a name is loaded where a file tells it; any other, the user gives.
    """
    specs = {alias.spec for alias in ALIASES.values()}
    return name in ALIASES or name in specs or name in {spec.partition("@")[0] for spec in specs}
