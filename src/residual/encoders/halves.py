"""Preprocessing in two halves: a picture to bytes, and those to the pixels that an encoder takes.

Bytes are a quarter of the pixels to hand from process to process, and are normalised where the encoder is.
What the first half does (`Geometry`) can be done to a picture that was decoded there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Num, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from residual.encoders.preprocess import (
    INTERPOLATIONS,
    OnWhite,
    Preprocess,
    Squared,
    bytes_of,
    center_crop,
    check_resized,
)
from residual.errors import ResidualError
from residual.pictures import check_size

_TO_TENSOR = ("ToTensor", "MaybeToTensor")
_NOTHING = ("MaybeConvertMode", "ToRGB", "_convert_to_rgb")  # to a picture that has colours alone
_SMOOTH = ("bilinear", "bicubic")
_MOST_OF_A_MATRIX = 2**19  # numbers, of 128 that are kept: 2 MB each
_AT_ONCE = 2**24  # pixels that are resized at a time, in fractions: 200 MB


@dataclass(frozen=True)
class Geometry:
    """Which part of a picture an encoder sees, and how large.

    Args:
        resized: from (height, width) of a picture to those that it is resized to.
        crop: (height, width) in the middle of that; None for all of it.
        filter: "bilinear" or "bicubic", both without aliasing.
        rounds: what was resized, to bytes.
        to_even: an odd margin is halved to the even number beside it, as torchvision does; else down.
    """

    resized: Callable[[int, int], tuple[int, int]]
    crop: tuple[int, int] | None
    filter: str
    rounds: bool
    to_even: bool

    def check(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the pixels of a picture of these, before it is decoded.

        Raises:
            ResidualError: the picture is too large, or would be.
        """
        check_size(width, height)
        tall, wide = self.resized(height, width)
        check_resized(tall * wide)
        return self.crop or (tall, wide)

    def drawn(self, pictures: Sequence[UInt8[Tensor, "3 _ _"]]) -> Num[Tensor, "n 3 height width"]:
        """Decoded pictures as `Halves.draw` would have them, on the device where they are.

        On a GPU, which resizes in fractions, a few bytes are others, most by one.

        Raises:
            ResidualError: they aren't of one size then.
        """
        alike: dict[tuple[int, ...], list[int]] = {}
        for place, picture in enumerate(pictures):
            alike.setdefault(tuple(picture.shape), []).append(place)
        # Together those of one size: each step on a GPU waits for one of the encoder's.
        groups = [
            group[start : start + most]
            for (_, tall, wide), group in alike.items()
            for most in [max(1, _AT_ONCE // (tall * wide))]
            for start in range(0, len(group), most)
        ]
        made = [self._resized(torch.stack([pictures[place] for place in group])) for group in groups]
        shapes = {tuple(each.shape[1:]): None for each in made}
        if len(shapes) > 1:
            one, other, *_ = shapes
            raise ResidualError(
                f"After preprocessing one picture has the shape {one}, and another {other}: an encoder's "
                "preprocessing has to crop pictures to one size."
            )
        order = [place for group in groups for place in group]
        whole = torch.cat(made)
        if order != sorted(order):
            whole = whole[torch.tensor(order).argsort().to(whole.device)]
        return whole.byte() if self.rounds else whole

    def _resized(self, pictures: Tensor) -> Tensor:
        """Some of one size. In fractions, where bytes can't be: first in width, then in height, rounded after
        each as Pillow does it.
        """
        size = self.resized(pictures.shape[2], pictures.shape[3])
        exact = self.rounds and not self.to_even and not pictures.is_cuda
        pixels = pictures if exact else pictures.float()
        if (exact or not self.rounds) and size != tuple(pixels.shape[2:]):
            pixels = interpolate(pixels, size, mode=self.filter, antialias=True)
        for axis in (3, 2):
            if size[axis - 2] != pixels.shape[axis]:
                pixels = _along(axis, pixels, size[axis - 2], self.filter).round_().clamp_(0, 255)
        return pixels if self.crop in (None, size) else self._cropped(pixels, *self.crop)

    def _cropped(self, pixels: Tensor, height: int, width: int) -> Tensor:
        if not self.to_even:
            return center_crop(pixels, height, width)
        tall, wide = pixels.shape[-2:]
        pixels = center_crop(pixels, max(height, tall), max(width, wide))  # pads
        top, left = round((pixels.shape[-2] - height) / 2), round((pixels.shape[-1] - width) / 2)
        return pixels[..., top : top + height, left : left + width]


def _along(axis: int, pixels: Tensor, to: int, filter_: str) -> Tensor:
    """Resized along one axis: by a matrix product, a third of the time on a GPU, where that isn't large."""
    if (now := pixels.shape[axis]) * max(now, to) > _MOST_OF_A_MATRIX:
        size = (pixels.shape[2], to) if axis == 3 else (to, pixels.shape[3])
        return interpolate(pixels, size, mode=filter_, antialias=True)
    matrix = _matrix(now, to, filter_, pixels.device)
    return pixels @ matrix if axis == 3 else matrix.mT @ pixels


@lru_cache(128)
def _matrix(now: int, to: int, filter_: str, device: torch.device) -> Float[Tensor, "now to"]:
    """What resizing does to a row: it is linear, and this is what it does to the identity."""
    identity = torch.eye(now, device=device)[None, None]
    return interpolate(identity, (now, to), mode=filter_, antialias=True)[0, 0]


@dataclass(frozen=True)
class Halves:
    """Args:
    draw: from a picture to its bytes `(3, h, w)`; or, where it can't be had in bytes, to its pixels.
    normalise: from bytes `(…, 3, h, w)` to pixels, on the device where they are.
    geometry: what `draw` does to a picture; None where that isn't known.
    """

    draw: Callable[[Image.Image], Num[Tensor, "3 h w"]]
    normalise: Callable[[UInt8[Tensor, "*n 3 h w"]], Float[Tensor, "*n 3 h w"]]
    geometry: Geometry | None


def halves_of(preprocess: Any) -> Halves | None:
    """Those of an encoder's preprocessing; None where it isn't known."""
    if isinstance(preprocess, Preprocess) and type(preprocess).__call__ is Preprocess.__call__:
        filter_ = INTERPOLATIONS[preprocess.interpolation]["mode"]
        shape = Geometry(preprocess.resized, preprocess.crop, filter_, preprocess.rounds, False)
        known = filter_ in _SMOOTH and not isinstance(preprocess, Squared)  # which warns of pictures
        draw = preprocess.drawn if preprocess.rounds else preprocess
        return Halves(draw, preprocess.normalised, shape if known else None)
    if type(preprocess) is OnWhite:
        return _of_torchvision(preprocess)
    return None


def _of_torchvision(preprocess: OnWhite) -> Halves | None:
    """Those of a `Compose` that makes a tensor, then normalises it, and does nothing else at its end."""
    whole: Any = preprocess.transform
    if type(whole).__name__ != "Compose" or not type(whole).__module__.startswith("torchvision."):
        return None
    steps = list(whole.transforms)
    if len(steps) < 2 or type(steps[-2]).__name__ not in _TO_TENSOR or not _normalises(steps[-1]):
        return None
    normalise = _Normalise(*(tuple(map(float, each)) for each in (steps[-1].mean, steps[-1].std)))
    return Halves(_Draw(preprocess, tuple(steps[:-2])), normalise, _geometry(steps[:-2]))


def _normalises(step: Any) -> bool:
    if type(step).__name__ != "Normalize":
        return False
    return len(step.mean) == len(step.std) == 3 and 0 not in list(map(float, step.std))


@dataclass(frozen=True)
class _Draw:
    """All steps before a tensor is made."""

    whole: OnWhite
    steps: tuple[Callable[[Any], Any], ...]

    def __call__(self, image: Image.Image) -> Tensor:
        seen: Any = self.whole.checked(image)
        for step in self.steps:
            seen = step(seen)
        return bytes_of(seen) if isinstance(seen, Image.Image) and seen.mode == "RGB" else self.whole(image)


@dataclass(frozen=True)
class _Normalise:
    """What torchvision's `ToTensor` and `Normalize` do, on any device.

    A GPU would divide by a number as it multiplies by its inverse: it is divided by a tensor.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, drawn: Tensor) -> Tensor:
        pixels = drawn.to(torch.get_default_dtype())
        most, mean, std = (
            torch.tensor(each, dtype=pixels.dtype).view(-1, 1, 1).to(pixels.device)
            for each in ([255.0], self.mean, self.std)
        )
        return pixels.div_(most).sub_(mean).div_(std)


def _geometry(steps: Sequence[Any]) -> Geometry | None:
    """Of at most one `Resize` and then one `CenterCrop` of torchvision's; None of anything else."""
    named = [(getattr(step, "__name__", type(step).__name__), step) for step in steps]
    named = [(name, step) for name, step in named if name not in _NOTHING]
    if [name for name, _ in named] not in ([], ["Resize"], ["CenterCrop"], ["Resize", "CenterCrop"]):
        return None
    given: dict[str, Any] = dict(named)
    resize, crop = given.get("Resize"), given.get("CenterCrop")
    if any(not type(each).__module__.startswith("torchvision.") for each in given.values()):
        return None
    filter_ = "bicubic" if resize is None else getattr(resize.interpolation, "value", "")
    if filter_ not in _SMOOTH or (resize is not None and resize.max_size is not None):
        return None
    sides = _sides(crop.size) if crop is not None else None
    if sides is not None and len(sides) != 2:
        return None
    size = None if resize is None else _sides(resize.size)
    return Geometry(_Resized(size), None if sides is None else (sides[0], sides[1]), filter_, True, True)


def _sides(size: Any) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)


@dataclass(frozen=True)
class _Resized:
    """What torchvision's `Resize` makes of (height, width)."""

    size: tuple[int, ...] | None

    def __call__(self, height: int, width: int) -> tuple[int, int]:
        if self.size is None:
            return height, width
        if len(self.size) == 2:
            return self.size[0], self.size[1]
        (short,) = self.size
        longer = int(short * max(height, width) / min(height, width))
        return (longer, short) if width <= height else (short, longer)
