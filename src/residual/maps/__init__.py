"""Where in a picture a unit, a text or an adapter finds what it finds.

A head's part of a score is a sum over the tokens that it attends to (`residual.tracing.sources`), and those
of the patches are a map. `making` has maps of texts, classes and components, `colours` lays them over
pictures; `baselines` are maps as others draw them, and `segmentation` tells how well any find a thing.
"""

from residual.maps.baselines import attention_rollout, grad_cam, raw_attention
from residual.maps.colours import box_of, heat, overlay
from residual.maps.making import class_maps, component_maps, text_maps
from residual.maps.maps import Maps
from residual.maps.segmentation import Segmentation, against_masks

__all__ = [
    "Maps",
    "Segmentation",
    "against_masks",
    "attention_rollout",
    "box_of",
    "class_maps",
    "component_maps",
    "grad_cam",
    "heat",
    "overlay",
    "raw_attention",
    "text_maps",
]
