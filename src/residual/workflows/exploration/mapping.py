"""Where in a picture of the store, or in one that was dropped, heads find what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from residual.adapters.adapted_encoder import AdaptedEncoder
from residual.encoders.changes import EncoderLike
from residual.errors import ResidualError
from residual.maps.colours import box_of
from residual.maps.making import component_maps, direction_maps, text_directions
from residual.maps.maps import Maps
from residual.workflows.exploration.asked import class_of, position_of, text_of, unit_of, within
from residual.workflows.exploration.bounded import Bounded
from residual.workflows.exploration.drops import MARK, Drops, smaller
from residual.workflows.exploration.parts import Parts
from residual.workflows.exploration.pictures import Pictures

Draw = Callable[[list[str] | None, bool], Maps]  # of some heads or all, each or their sum
TOP = 10  # heads, where those that add most are asked for
_MOST = 64  # maps in an answer
_KEPT = 2**23  # bytes of numbers


class PictureMaps:
    """Maps of pictures; those of the last requests are kept.

    Args:
        parts: of the exploration.
        pictures: of the store.
        drops: pictures that were dropped.
    """

    def __init__(self, parts: Parts, pictures: Pictures, drops: Drops):
        self.parts, self.pictures, self.drops = parts, pictures, drops
        self._kept: Bounded[dict[str, Any]] = Bounded(_KEPT, lambda answer: 64 + 9 * _numbers(answer))

    def map(
        self,
        picture: str,
        *,
        of_class: int | None = None,
        against: int | None = None,
        text: str = "",
        unit: str = "",
        component: int = 0,
        heads: str = "",
        separate: bool = False,
        adapter: str = "",
    ) -> dict[str, Any]:
        """See api/map.

        A class is shown against the mean of all classes where none is named, a text as `text_maps` shows it.
        Components are of the encoder itself, and of their own head.

        Args:
            picture: its place in the store, or the name of one that was dropped.
            of_class, against: a class, or one against another.
            text: a text.
            unit, component: a head's component.
            heads: names of heads with commas between; "top" for the ten that add or take most; "" for all.
            separate: one map a head in place of their sum; the ten that add or take most where none is named.
            adapter: its key, for maps of what it makes of the output.

        Raises:
            ResidualError: nothing is asked for, or several things at once; something isn't there; or the
                encoder or the picture isn't here.
        """
        asked = [
            what
            for what, given in (("a class", of_class is not None), ("a text", text), ("a component", unit))
            if given
        ]
        if len(asked) != 1:
            told = " and ".join(asked) if asked else "none of them"
            raise ResidualError(f"A map is of a class, of a text or of a component: got {told}.")
        if against is not None and of_class is None:
            raise ResidualError("Only a class has a class against it.")
        if unit and (heads or adapter):
            raise ResidualError(
                "A component is of one head of the encoder itself: heads and adapters have no effect."
            )
        image, pixels, name = self._picture(picture)
        key = name, of_class, against, text and text_of(text), unit, component, heads, separate, adapter

        def make() -> dict[str, Any]:
            encoder = self._encoder(adapter)
            if unit:
                found = self._component(encoder, pixels, unit, component)
            else:
                draw = self._drawer(encoder, pixels, of_class, against, text, adapter)
                found = self._several(draw, heads, separate)
            return self._told(found, box_of(self.parts.encoder, smaller(image)))

        return self._kept.get(key, make)

    def _picture(self, picture: str) -> tuple[Image.Image, Tensor, str]:
        """The picture, its pixels, and what it is called."""
        if picture.startswith(MARK):
            dropped = self.drops.dropped(picture)
            return dropped.image, dropped.pixels, picture
        if not (picture.isascii() and picture.isdecimal() and len(picture) < 13):
            raise ResidualError(f"A picture is a place in the store or drop:…, got {picture[:40]!r}.")
        position = position_of(self.parts, int(picture))
        image = self.pictures.image(position)
        return image, self.parts.encoder.pixels([image]), str(position)

    def _encoder(self, adapter: str) -> EncoderLike:
        if not adapter:
            return self.parts.encoder
        held = self.parts.adapter(adapter)

        def make() -> AdaptedEncoder:
            with self.parts.running:  # what is copied has no hooks of a pass
                return AdaptedEncoder(self.parts.encoder, held.adapter, share=True)

        return self.parts.made.get(("adapted", adapter), make)

    def _component(self, encoder: EncoderLike, pixels: Tensor, unit: str, component: int) -> Maps:
        of = unit_of(self.parts, unit)
        if self.parts.units.kind(of) != "head":
            raise ResidualError(f"{unit} looks nowhere: only heads read off other places, and have maps.")
        bases = self.parts.bases
        count = bases.select([of]).ranks[0]
        within(component, f"The number of a component of head {unit}", 0, count - 1)
        with self.parts.running, torch.no_grad():
            return component_maps(encoder, pixels, bases, f"{self.parts.units.name(of)}:{component}")

    def _several(self, draw: Draw, heads: str, separate: bool) -> Maps:
        """The sum of heads, or each of some."""
        if heads and heads != "top":
            named = [name.strip() for name in heads.split(",")]
            if len(named) > _MOST and separate:
                raise ResidualError(f"At most {_MOST} maps are shown at once, got {len(named)} heads.")
            return draw(named, separate)
        if not separate and not heads:
            return draw(None, False)
        each = draw(None, True)
        best = each.largest(TOP)
        if separate:
            return each.take(maps=best)
        every = self.parts.units.positions("head")
        return draw([self.parts.units.name(every[place]) for place in best], False)

    def _drawer(
        self,
        encoder: EncoderLike,
        pixels: Tensor,
        of_class: int | None,
        against: int | None,
        text: str,
        adapter: str,
    ) -> Draw:
        """Draws maps of a class or a text. What others may be making is waited for here, before the encoder
        is held: they may wait for that.
        """
        how: dict[str, Any] = {}
        if of_class is None:
            name = text_of(text)
            with self.parts.running:  # what someone types is theirs
                direction = text_directions(self.parts.encoder, name, keep=False)[0]
        else:
            direction, name, scale = self._class(of_class, against, adapter)
            how = {"of": "logit", "scale": scale}

        def draw(heads: list[str] | None, separate: bool) -> Maps:
            with self.parts.running, torch.no_grad():
                return direction_maps(
                    encoder, pixels, direction[None], [name], heads, separate=separate, **how
                )

        return draw

    def _class(self, of_class: int, against: int | None, adapter: str) -> tuple[Tensor, str, float]:
        """A class's direction, against another or against all, its name, and the scale of logits."""
        classifier = self.parts.adapter(adapter).classifier if adapter else None
        classifier = self.parts.classifier if classifier is None else classifier
        names, rows = self.parts.store.class_names, classifier.weights.cpu()
        own = class_of(self.parts, of_class)
        if against is not None:
            other = class_of(self.parts, against)
            return rows[own] - rows[other], f"{names[own]} against {names[other]}", classifier.scale
        return rows[own] - rows.mean(0) * (len(rows) > 1), names[own], classifier.scale

    def _told(self, found: Maps, box: tuple[float, float, float, float]) -> dict[str, Any]:
        every = (found.values, found.elsewhere, found.rest, found.total)
        if not all(bool(each.isfinite().all()) for each in every):
            raise ResidualError(f"{self.parts.store.encoder_name} gives no finite map of this picture.")
        return {
            "maps": found.to_json()[0],
            "scale": found.scale,
            "box": list(box),
            "rows": found.values.shape[2],
            "cols": found.values.shape[3],
            "of": found.of,
        }


def _numbers(answer: dict[str, Any]) -> int:
    return len(answer["maps"]) * (answer["rows"] * answer["cols"] + 4)
