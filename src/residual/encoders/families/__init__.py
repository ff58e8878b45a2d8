"""All families of encoders that are known, one file each; the first that handles a module's class has it."""

from __future__ import annotations

import copyreg
from typing import Any

from residual.encoders.families import (
    aimv2,
    beit,
    blip,
    clip,
    deit,
    dinov2,
    dinov3,
    eva,
    metaclip2,
    open_clip,
    siglip,
    siglip2,
    timm,
    torchvision,
    vit,
)
from residual.encoders.family import Family

FAMILIES: tuple[Family, ...] = (
    *clip.FAMILIES,
    *metaclip2.FAMILIES,
    *open_clip.FAMILIES,
    *deit.FAMILIES,  # before timm's others, of which its own is one
    *timm.FAMILIES,
    *eva.FAMILIES,
    *siglip.FAMILIES,
    *siglip2.FAMILIES,
    *aimv2.FAMILIES,
    *blip.FAMILIES,
    *vit.FAMILIES,
    *dinov2.FAMILIES,
    *dinov3.FAMILIES,
    *beit.FAMILIES,
    *torchvision.FAMILIES,
)


def _named(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


def _reduced(family: Family) -> Any:
    """A known family is copied and pickled as its name; one of the user's own by what is in it."""
    known = any(family is each for each in FAMILIES)
    return (_named, (family.name,)) if known else object.__reduce_ex__(family, 2)


copyreg.pickle(Family, _reduced)
