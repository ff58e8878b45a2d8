"""Maps beside the pictures at the ends of components: where in each its head has the score from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from PIL import Image, features
from torch import Tensor

from residual.data import ImageDataset
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError, UnreadableImageError
from residual.maps.colours import Box, box_of, overlay
from residual.maps.making import component_maps
from residual.maps.maps import scale_of
from residual.progress import Progress
from residual.report.pages import data_uri, encoded
from residual.spectral.bases import SpectralBases

_AT_ONCE = 32  # pictures that the encoder sees
_QUALITY = 60  # of a small pale picture: a map is smooth


@dataclass(frozen=True)
class EndMap:
    """One map over its picture: a data URI, and in words where it is strongest."""

    uri: str
    words: str


@dataclass(frozen=True)
class EndMaps:
    """Maps by component ("11.4:0") and sample; and why there are none, where there should be."""

    found: Mapping[tuple[str, str], EndMap] = field(default_factory=dict)
    note: str = ""

    def get(self, component: str, sample: str) -> EndMap | None:
        """None where there is no such map."""
        return self.found.get((component, sample))


def end_maps(
    encoder: Encoder,
    bases: SpectralBases,
    dataset: ImageDataset,
    wanted: Mapping[str, Sequence[str]],
    progress: Progress | None = None,
    side: int = 64,
) -> EndMaps:
    """Maps of components over pictures, as `component_maps` makes them, in colours with one scale for each
    component. Each picture goes through the encoder once; those that can't be read have none.

    Args:
        encoder: that of the bases.
        bases: of the components' heads.
        dataset: with the pictures.
        wanted: of each component, such as "11.4:0", ids of samples.
        progress: called with the number of pictures that are done and their total.
        side: of the largest picture, in pixels.
    """
    positions = {sample: place for place, sample in enumerate(dataset.sample_ids)}
    shown = {sample for some in wanted.values() for sample in some}
    every = [sample for sample in positions if sample in shown]
    made: dict[str, list[tuple[str, Image.Image, Box, Tensor]]] = {name: [] for name in wanted}
    boxes: dict[tuple[int, int], Box] = {}
    for first in range(0, len(every), _AT_ONCE):
        some = every[first : first + _AT_ONCE]
        pictures = {sample: picture for sample in some if (picture := _read(dataset, positions[sample]))}
        if not pictures:
            continue
        try:
            pixels = encoder.pixels(list(pictures.values()))
            values = component_maps(encoder, pixels, bases, list(wanted)).values.cpu()
            for picture in pictures.values():
                if picture.size not in boxes:
                    boxes[picture.size] = box_of(encoder, picture)
        except ResidualError as error:
            return EndMaps(note=f"There are no maps: {error}")
        if not values.isfinite().all():
            return EndMaps(note=f"There are no maps: {encoder.name} gives none that is finite.")
        for (sample, picture), own in zip(pictures.items(), values, strict=True):
            small = picture.convert("RGB")
            small.thumbnail((side, side))
            for name, grid in zip(wanted, own, strict=True):
                if sample in wanted[name]:
                    made[name].append((sample, small, boxes[picture.size], grid))
        if progress is not None:
            progress("map pictures", first + len(some), len(every))
    found = {}
    for name, each in made.items():
        scale = scale_of(torch.stack([grid for *_, grid in each])) if each else 0.0
        for sample, picture, box, grid in each:
            found[name, sample] = EndMap(_uri(overlay(picture, grid, scale, box)), strongest(grid))
    return EndMaps(found)


def strongest(grid: Float[Tensor, "rows cols"]) -> str:
    """Where in a picture the largest value of a map is, and whether it raises the score.

    Example:
        >>> strongest(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -2.0], [1.0, 0.0, 0.0]]))
        'lowered most in the middle right'
    """
    rows, cols = grid.shape
    row, col = divmod(int(grid.abs().argmax()), cols)
    tall = ("top", "middle", "bottom")[int(3 * (row + 0.5) / rows)]
    wide = ("left", "centre", "right")[int(3 * (col + 0.5) / cols)]
    where = "centre" if (tall, wide) == ("middle", "centre") else f"{tall} {wide}"
    return f"{'raised' if grid[row, col] > 0 else 'lowered'} most in the {where}"


def _read(dataset: ImageDataset, position: int) -> Image.Image | None:
    try:
        return dataset[position][0]
    except UnreadableImageError:
        return None


def _uri(image: Image.Image) -> str:
    """WebP where this Pillow writes it: of so small a picture it is half of a JPEG."""
    form = "WEBP" if features.check("webp") else "JPEG"
    return data_uri(f"image/{form.lower()}", encoded(image, form, quality=_QUALITY))
