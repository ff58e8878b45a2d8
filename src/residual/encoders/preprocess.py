"""From a PIL image to the pixels an encoder takes: what CLIP's own image processor does, step by step.

Same numbers as transformers' `CLIPImageProcessor` (tested), without its batch machinery: an image that has
the right size already is only normalised.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from residual.errors import ResidualError

# OpenAI's statistics, which CLIP models keep (transformers.image_utils.OPENAI_CLIP_MEAN, OPENAI_CLIP_STD).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_INTERPOLATIONS: dict[int, InterpolationMode] = {
    Image.Resampling.NEAREST.value: InterpolationMode.NEAREST_EXACT,
    Image.Resampling.BILINEAR.value: InterpolationMode.BILINEAR,
    Image.Resampling.BICUBIC.value: InterpolationMode.BICUBIC,
}


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop in the middle, scale to [0, 1], normalise; None leaves a step out.

    Args:
        resize: length of the shortest edge, or (height, width).
        crop: (height, width).
        interpolation: PIL's number of the resampling filter.
        mean: per channel, of values in [0, 1].
        std: likewise.
        rescale: factor from bytes to [0, 1].
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    interpolation: int = Image.Resampling.BICUBIC
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    rescale: float = 1 / 255

    def __post_init__(self):
        if self.interpolation not in _INTERPOLATIONS:
            known = ", ".join(f"{kind} ({mode.value})" for kind, mode in _INTERPOLATIONS.items())
            raise ResidualError(f"Resampling filter {self.interpolation} isn't known. Known: {known}.")

    @classmethod
    def square(cls, size: int) -> Preprocess:
        """CLIP's usual settings for images of `size` by `size`."""
        return cls(resize=size, crop=(size, size))

    @classmethod
    def from_folder(cls, folder: str | Path) -> Preprocess:
        """Read `preprocessor_config.json`, or the image processor's part of `processor_config.json`."""
        alone, together = (Path(folder) / f"{name}_config.json" for name in ("preprocessor", "processor"))
        if alone.is_file():
            return cls.from_config(json.loads(alone.read_text(encoding="utf-8")))
        if together.is_file():
            whole = json.loads(together.read_text(encoding="utf-8"))
            if "image_processor" in whole:
                return cls.from_config(whole["image_processor"])
        raise ResidualError(f"{alone} isn't there: it tells how images are resized and normalised.")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Preprocess:
        """From the fields of transformers' `CLIPImageProcessor`; absent ones mean its defaults."""
        size, crop = config.get("size", 224), config.get("crop_size", 224)
        if isinstance(size, dict):
            size = size["shortest_edge"] if "shortest_edge" in size else (size["height"], size["width"])
        crop = (crop["height"], crop["width"]) if isinstance(crop, dict) else (crop, crop)
        normalize = config.get("do_normalize", True)
        return cls(
            resize=size if config.get("do_resize", True) else None,
            crop=crop if config.get("do_center_crop", True) else None,
            interpolation=config.get("resample", Image.Resampling.BICUBIC),
            mean=tuple(config.get("image_mean", CLIP_MEAN)) if normalize else (0.0, 0.0, 0.0),
            std=tuple(config.get("image_std", CLIP_STD)) if normalize else (1.0, 1.0, 1.0),
            rescale=config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0,
        )

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        """The pixels of one image."""
        pixels = torch.from_numpy(np.array(_to_rgb(image))).permute(2, 0, 1)  # (3, h, w), bytes
        if (size := self._resized(image.height, image.width)) != (image.height, image.width):
            pixels = tv.resize(pixels, list(size), _INTERPOLATIONS[self.interpolation], antialias=True)
        if self.crop and self.crop != size:
            pixels = _center_crop(pixels, *self.crop)
        mean = torch.tensor(self.mean).view(3, 1, 1) / self.rescale
        std = torch.tensor(self.std).view(3, 1, 1) / self.rescale
        return (pixels.float() - mean) / std

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        if height <= width:
            return self.resize, int(self.resize * width / height)
        return int(self.resize * height / width), self.resize


def _to_rgb(image: Image.Image) -> Image.Image:
    """Colours only; what is transparent shows white, as in transformers."""
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _center_crop(pixels: Tensor, height: int, width: int) -> Tensor:
    """The middle `height` by `width`; black around an image that is smaller. Rounds as transformers does."""
    tall, wide = max(height - pixels.shape[1], 0), max(width - pixels.shape[2], 0)
    pixels = torch.nn.functional.pad(pixels, (wide // 2, (wide + 1) // 2, tall // 2, (tall + 1) // 2))
    top, left = (pixels.shape[1] - height) // 2, (pixels.shape[2] - width) // 2
    return pixels[:, top : top + height, left : left + width]
