"""All families of encoders that are known, one file each; the first that handles a module's class has it."""

from __future__ import annotations

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
