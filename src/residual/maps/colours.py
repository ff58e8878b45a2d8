"""Maps in colours and over pictures: blue is against, orange for, clear neither. Needs no matplotlib.

Both colours are of Okabe and Ito's palette, which colour-blind eyes tell apart; how much is told by how solid
they are, so that they do on light and on dark.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from residual.encoders.changes import EncoderLike, checked_encoder
from residual.errors import ResidualError
from residual.maps.maps import resized

FOR, AGAINST = (213, 94, 0), (0, 114, 178)  # "#D55E00", "#0072B2"
SOLID = 0.9  # of a full colour: a little of the picture shows
_PALER = (0.4, 0.75)  # how much white is in the picture below a map, and beside it
_GREYS = 48, 208  # between which a filter that makes a little too much of them stays in bytes
_EVEN = (256, 256)  # pixels of what is of one grey
_STRAIGHT = 0.004  # a box that ends so near to the picture's end ends there

Box = tuple[float | int, float | int, float | int, float | int]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def heat(values: Any, scale: float | None = None) -> np.ndarray:
    """Values `(…)` as colours `(…, 4)` in bytes: orange where they are positive, blue where negative, the
    more solid the larger, up to `scale`.

    Args:
        values: an array or a tensor.
        scale: `Maps.scale`; None for the largest size among these.

    Example:
        >>> heat(np.array([-1.0, 0.0, 0.5])).tolist()
        [[0, 114, 178, 230], [213, 94, 0, 0], [213, 94, 0, 115]]
    """
    numbers = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, np.float64)
    scale = float(np.abs(numbers).max(initial=0)) if scale is None else scale
    shares = np.clip(np.abs(numbers) / scale, 0, 1) if scale > 0 else np.zeros_like(numbers)
    colours = np.where(numbers[..., None] < 0, AGAINST, FOR)
    return np.concatenate([colours, np.rint(255 * SOLID * shares)[..., None]], -1).astype(np.uint8)


def overlay(
    picture: Image.Image, values: Any, scale: float | None = None, box: Box = WHOLE, way: str = "bilinear"
) -> Image.Image:
    """A map over its picture, which is made grey and pale, so that all colour is the map's.

    Args:
        picture: upright.
        values: one map `(rows, cols)`.
        scale: see `heat`.
        box: the part of the picture that the map is of, see `box_of`; what is beside it is paler.
        way: between patches, see `Maps.resized`.
    """
    width, height = picture.size
    left, top, right, bottom = (round(end * of) for end, of in zip(box, (width, height) * 2, strict=True))
    below, beside = (_paler(picture, white) for white in _PALER)
    size = max(1, bottom - top), max(1, right - left)
    grid = torch.as_tensor(values).detach().cpu().double()[None, None]
    scale = float(grid.abs().max()) if scale is None else scale
    colours = Image.fromarray(heat(resized(grid, size, way)[0, 0], scale))
    seen = Image.new("RGBA", picture.size)  # clear
    seen.paste(colours, (left, top))
    frame = (max(0, left), max(0, top), min(width, right), min(height, bottom))
    beside.paste(below.crop(frame), frame[:2])
    return Image.alpha_composite(beside.convert("RGBA"), seen).convert("RGB")


def _paler(picture: Image.Image, white: float) -> Image.Image:
    grey = picture.convert("L").convert("RGB")
    return Image.blend(grey, Image.new("RGB", picture.size, "white"), white)


def box_of(encoder: EncoderLike, picture: Image.Image) -> Box:
    """The part of a picture that an encoder sees, as fractions of it: left, top, right and bottom; beyond 0
    and 1 where the encoder gets a border around it.

    It is measured, whatever its preprocessing is made of, for as long as that takes of a picture of the same
    size: by what becomes of one that is brighter to the right and, in another colour, to the bottom.

    Raises:
        ResidualError: the preprocessing leaves nothing of that.
    """
    preprocess, (width, height) = checked_encoder(encoder).preprocess, picture.size
    across, down = (np.rint(np.linspace(*_GREYS, side)).astype(np.uint8) for side in (width, height))
    slopes = [
        Image.fromarray(each).resize(picture.size, Image.Resampling.NEAREST)
        for each in (across[None], down[:, None], np.array([[_GREYS[1]]], np.uint8))
    ]
    made = [Image.new("RGB", _EVEN, (grey,) * 3) for grey in _GREYS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pictures that are none
        low, high, found = (preprocess(each).double().numpy() for each in (*made, Image.merge("RGB", slopes)))
    # What each grey becomes, whatever is around it; blue is even in the picture, and tells where that ends.
    low, high = (each[:, each.shape[1] // 2, each.shape[2] // 2, None, None] for each in (low, high))
    shares = (found - low) / (high - low)
    shares[:, np.abs(shares[2] - 1) > 0.1] = np.nan
    left, right = _ends(shares[0], width)
    top, bottom = _ends(shares[1].T, height)
    return left, top, right, bottom


def _ends(shares: np.ndarray, side: int) -> tuple[float, float]:
    """Where the first column of pixels begins and the last one ends, as fractions of the side that they were
    made of: by their brightness, as a share of the whole; NaN in a border.
    """
    places = np.flatnonzero(~np.isnan(shares).all(0))
    if side < 2:
        return 0.0, 1.0
    if len(places) < 2:
        raise ResidualError("Which part of a picture this encoder sees can't be told by its preprocessing.")
    at = (np.nanmedian(shares[:, places], 0) * (side - 1) + 0.5) / side
    slope, start = np.polyfit(places, at, 1)
    ends = float(start - 0.5 * slope), float(start + (shares.shape[1] - 0.5) * slope)
    first, last = (
        goal if abs(end - goal) < _STRAIGHT else round(end, 4)
        for end, goal in zip(ends, (0.0, 1.0), strict=True)
    )
    return first, last
