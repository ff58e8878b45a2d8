"""All families of encoders that are known, one file each; the first that handles a module's class has it."""

from __future__ import annotations

import copyreg
from typing import Any

from residual.encoders.families import blip, clip, dinov2, open_clip, siglip, timm, vit
from residual.encoders.family import Family

FAMILIES: tuple[Family, ...] = (
    *clip.FAMILIES,
    *open_clip.FAMILIES,
    *timm.FAMILIES,
    *siglip.FAMILIES,
    *blip.FAMILIES,
    *vit.FAMILIES,
    *dinov2.FAMILIES,
)


def _named(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)


def _reduced(family: Family) -> Any:
    """A known family is copied and pickled as its name; one of the user's own by what is in it."""
    known = any(family is each for each in FAMILIES)
    return (_named, (family.name,)) if known else object.__reduce_ex__(family, 2)


copyreg.pickle(Family, _reduced)
