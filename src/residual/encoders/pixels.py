"""Pictures and arrays as the pixels an encoder takes: the one place where PIL, bytes, NumPy and torch meet.

Numbers that are fractions are pixels already, as the encoder's preprocessing leaves them; bytes (uint8) are a
picture, which it has yet to go through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Num
from PIL import Image
from torch import Tensor

from residual.errors import ResidualError
from residual.pictures import as_picture

Pixels = Float[Tensor, "n 3 height width"] | Float[np.ndarray, "n 3 height width"]
_WAY_OUT = "Give pictures (PIL, or bytes as uint8), which encoder.pixels preprocesses and stacks."


@dataclass(frozen=True)
class ToPixels:
    """From one picture, of whatever kind, to pixels `(3, h, w)`.

    Args:
        name: of the encoder, for errors.
        preprocess: from a PIL image to pixels.
        size: `(height, width)` that it takes; None for any.
    """

    name: str
    preprocess: Callable[[Image.Image], Tensor]
    size: tuple[int, int] | None

    def __call__(self, picture: Any) -> Num[Tensor, "3 h w"]:
        """A PIL image or bytes `(h, w)`, `(h, w, 3)` or `(3, h, w)` are preprocessed; fractions `(3, h, w)`
        are pixels that are so already, and only looked at.

        Raises:
            ResidualError: it is none of these, or pixels of another size.
        """
        if isinstance(picture, Image.Image):
            return self.preprocess(picture)
        if not isinstance(picture, np.ndarray | Tensor):
            raise ResidualError(
                f"A picture is a PIL image, bytes (uint8), or pixels of {self.name}; got "
                f"{type(picture).__name__}."
            )
        if is_bytes(picture):
            return self.preprocess(as_picture(np.asarray(picture), isinstance(picture, Tensor)))
        return checked(picture[None], self.name, self.size)[0]


def is_bytes(values: np.ndarray | Tensor) -> bool:
    """Whether an array's numbers are bytes, so a picture's and not pixels."""
    return values.dtype in (np.uint8, torch.uint8)


def checked(pixels: Any, name: str, size: tuple[int, int] | None) -> Float[Tensor, "n 3 h w"]:
    """Pixels of several images as a tensor; NumPy's share their memory.

    Args:
        pixels: a tensor or an array.
        name: of the encoder, for errors.
        size: `(height, width)` that it takes; None for any.

    Raises:
        ResidualError: they are no array, no images, no fractions or of another size.
    """
    if not isinstance(pixels, np.ndarray | Tensor):
        raise ResidualError(
            f"The image tower takes pixels as an array, got {type(pixels).__name__}.", _WAY_OUT
        )
    shape = tuple(pixels.shape)
    if len(shape) != 4 or shape[1] != 3 or not shape[0]:
        raise ResidualError(
            f"{name} takes one image or more as (n, 3, height, width), got {shape}: run them through "
            "encoder.preprocess and stack them, or say pixels[None] for one.",
            "Channels come last in pictures alone, and these are bytes (uint8)."
            if shape[-1:] == (3,)
            else "",
        )
    ready = torch.from_numpy(np.ascontiguousarray(pixels)) if isinstance(pixels, np.ndarray) else pixels
    if not ready.is_floating_point():
        raise ResidualError(
            f"{name} takes pixels that are preprocessed, so fractions; got "
            f"{str(ready.dtype).removeprefix('torch.')}.",
            _WAY_OUT,
        )
    if size is not None and shape[-2:] != size:
        raise ResidualError(
            f"{name} takes images of {size[0]} by {size[1]} pixels, got {shape[-2]} by {shape[-1]}: run them "
            "through encoder.preprocess first.",
            "Tensors and arrays of fractions are taken for pixels that are so already.",
        )
    return ready
