"""Where in a picture a unit, a text or an adapter finds what it finds.

A head's part of a score is a sum over the tokens that it attends to (`residual.tracing.sources`), and those
of the patches are a map. `making` has maps of texts, classes and components, `colours` lays them over
pictures.
"""

from residual.maps.colours import box_of, heat, overlay
from residual.maps.making import class_maps, component_maps, text_maps
from residual.maps.maps import Maps

__all__ = ["Maps", "box_of", "class_maps", "component_maps", "heat", "overlay", "text_maps"]
