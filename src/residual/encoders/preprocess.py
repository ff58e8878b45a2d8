"""From a PIL image to the pixels an encoder takes: what transformers' image processors do, step by step.

Same numbers as theirs (tested), without their batch machinery: an image that has the right size already is
only normalised. open_clip's and timm's models keep those libraries' own transforms. `halves.py` parts both
into what gives bytes and what normalises them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Num, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from residual.errors import ResidualError
from residual.files import parse_json, read_regular
from residual.pictures import MOST_PIXELS, check_size, on_white

# OpenAI's statistics, which CLIP models keep (transformers.image_utils.OPENAI_CLIP_MEAN, OPENAI_CLIP_STD).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Usual statistics of models trained on ImageNet, and those that map bytes to [-1, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)

INTERPOLATIONS: dict[int, dict[str, Any]] = {
    Image.Resampling.NEAREST.value: {"mode": "nearest-exact"},
    Image.Resampling.BILINEAR.value: {"mode": "bilinear", "antialias": True},
    Image.Resampling.BICUBIC.value: {"mode": "bicubic", "antialias": True},
}

_READ = {"size", "crop_size", "resample", "image_mean", "image_std", "rescale_factor"}
_READ |= {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "patch_size", "max_num_patches"}
_MOST_SIDE = 8192
_LARGE = 1e9  # of what bytes are divided by; NaN and infinity aren't under it
_MOST_JSON = 2**20  # bytes
_SQUARED = (
    "This encoder was trained with pictures in their own form (NaFlex), and here each is made a square: "
    "those that aren't are distorted. Crop them before, or take a SigLIP 2 of a fixed size, such as "
    "google/siglip2-base-patch16-224."
)
_PROCESSORS = {"vit": "ViT", "siglip": "Siglip", "blip": "Blip", "dinov2": "Bit"}
_PROCESSORS |= {"siglip2": "Siglip2", "deit": "DeiT", "dinov3": "DINOv3ViT"}
# Of transformers' class, which needs torchvision.
_DINOV3 = SimpleNamespace(
    size={"height": 224, "width": 224},
    resample=Image.Resampling.BILINEAR.value,
    image_mean=IMAGENET_MEAN,
    image_std=IMAGENET_STD,
    rescale_factor=1 / 255,
    do_resize=True,
    do_rescale=True,
    do_normalize=True,
)


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
    mean: tuple[int | float, ...] = CLIP_MEAN
    std: tuple[int | float, ...] = CLIP_STD
    rescale: int | float = 1 / 255
    rounds: ClassVar[bool] = True  # what was resized, to bytes

    def __post_init__(self):
        _check(**{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def square(cls, size: int) -> Preprocess:
        """CLIP's usual settings for images of `size` by `size`."""
        return cls(resize=size, crop=(size, size))

    @classmethod
    def from_folder(cls, folder: str | Path) -> Preprocess:
        """Read `preprocessor_config.json`, or the image processor's part of `processor_config.json`.

        Raises:
            ResidualError: neither is there, or as `from_config`.
        """
        alone, together = (Path(folder) / f"{name}_config.json" for name in ("preprocessor", "processor"))
        config = {}
        if alone.is_file():
            config = parse_json(read_regular(alone, _MOST_JSON), alone.name)
        elif together.is_file():
            config = parse_json(read_regular(together, _MOST_JSON), together.name).get("image_processor", {})
        if config:
            named = config.get("image_processor_type") or config.get("feature_extractor_type")
            return cls.from_config(config | {"image_processor_type": named or _usual(Path(folder))})
        raise ResidualError(f"{alone} isn't there: it tells how images are resized and normalised.")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Preprocess:
        """From the fields of an image processor's config; absent ones mean the defaults of its class.

        Raises:
            ResidualError: the class, the size or the resampling filter isn't known.
        """
        defaults = _defaults(config.get("image_processor_type") or config.get("feature_extractor_type"))
        if not hasattr(defaults, "do_resize"):  # before transformers 5 they are those of its arguments
            defaults = defaults(**{name: value for name, value in config.items() if name in _READ})
            config = vars(defaults)

        def get(field: str) -> Any:
            value = config.get(field)
            return getattr(defaults, field, None) if value is None else value

        size, crop = get("size"), get("crop_size")
        if isinstance(size, int) and getattr(defaults, "default_to_square", True):
            size = (size, size)
        if isinstance(size, dict):
            if "shortest_edge" not in size and "height" not in size:
                raise ResidualError(f"Image size {size} isn't known: shortest_edge, or height and width.")
            size = size["shortest_edge"] if "shortest_edge" in size else (size["height"], size["width"])
        crop = (crop["height"], crop["width"]) if isinstance(crop, dict) else (crop, crop)
        normalize, rescale = get("do_normalize"), get("rescale_factor")
        colours: dict[str, Any] = {
            "interpolation": get("resample"),
            "mean": tuple(get("image_mean")) if normalize else (0.0, 0.0, 0.0),
            "std": tuple(get("image_std")) if normalize else (1.0, 1.0, 1.0),
            "rescale": rescale if get("do_rescale") else 1.0,
        }
        if size is None and get("max_num_patches"):
            return Squared.of(get("max_num_patches"), get("patch_size"), **colours)
        kind = Unrounded if defaults is _DINOV3 else cls
        steps: dict[str, Any] = {
            "resize": _whole(size) if get("do_resize") else None,
            "crop": _whole(crop) if get("do_center_crop") else None,
            **colours,
        }
        _check(**steps)
        return kind(**steps)

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        """The pixels of one image.

        Raises:
            ResidualError: its size is out of bounds, see `check_size`, or would be when it is resized.
        """
        return self.normalised(self.drawn(image))

    def drawn(self, image: Image.Image) -> Num[Tensor, "3 h w"]:
        """One image resized and cropped, in bytes; of `Unrounded`, in fractions of them where it was resized.

        Raises:
            ResidualError: as calling it.
        """
        check_size(*image.size)
        size = self.resized(image.height, image.width)
        check_resized(math.prod(size))
        pixels = bytes_of(colours(image))
        if size != (image.height, image.width):
            pixels = pixels if self.rounds else pixels.float()
            pixels = interpolate(pixels[None], size, **INTERPOLATIONS[self.interpolation])[0]
        if self.crop and self.crop != size:
            pixels = center_crop(pixels, *self.crop)
        return pixels

    def normalised(self, drawn: Num[Tensor, "*n 3 h w"]) -> Float[Tensor, "*n 3 h w"]:
        """The pixels of what was drawn, on the device where that is: the same numbers on all of them."""
        mean = torch.tensor(self.mean).view(3, 1, 1) / self.rescale
        std = torch.tensor(self.std).view(3, 1, 1) / self.rescale
        return (drawn.float() - mean.to(drawn.device)) / std.to(drawn.device)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image of these is resized to."""
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        if height <= width:
            return self.resize, int(self.resize * width / height)
        return int(self.resize * height / width), self.resize


@dataclass(frozen=True)
class Unrounded(Preprocess):
    """The same for DINOv3, whose processor doesn't round to bytes what it resized."""

    rounds = False


@dataclass(frozen=True)
class Squared(Preprocess):
    """The same for models that take pictures of any form (NaFlex): here all become squares, which is told."""

    @classmethod
    def of(cls, patches: int, side: int, **how: Any) -> Squared:
        """The largest square of whole patches, at most so many, each `side` pixels wide."""
        whole = math.isqrt(patches) * side
        return cls((whole, whole), None, **how)

    def drawn(self, image: Image.Image) -> Num[Tensor, "3 h w"]:
        """See `Preprocess`."""
        if image.width != image.height:
            warnings.warn(_SQUARED, stacklevel=3)
        return super().drawn(image)


@dataclass(frozen=True)
class OnWhite:
    """Another library's transform, given what is transparent on white, as all preprocessing here."""

    transform: Callable[[Image.Image], Tensor]

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 h w"]:
        """The pixels of one image.

        Raises:
            ResidualError: its size is out of bounds, see `check_size`, or would be when it is resized.
        """
        return self.transform(self.checked(image))

    def checked(self, image: Image.Image) -> Image.Image:
        """An image in colours that isn't too large, nor will be.

        Raises:
            ResidualError: it is.
        """
        check_size(*image.size)
        longer = max(image.size) / min(image.size)
        for step in getattr(self.transform, "transforms", ()):
            if type(step).__name__.startswith("Resize"):
                size = getattr(step, "size", getattr(step, "max_size", 0))
                sides = list(size) if isinstance(size, list | tuple) else [size]
                # Only torchvision's own, which is a module, doesn't keep the picture's form.
                fixed = len(sides) == 2 and isinstance(step, torch.nn.Module)
                check_resized(math.prod(sides) if fixed else max(sides) ** 2 * longer)
        return colours(image)


def _whole(size: Any) -> Any:
    """With whole numbers for those that JSON has as 224.0."""
    if isinstance(size, tuple):
        return tuple(map(_whole, size))
    return int(size) if isinstance(size, float) and size.is_integer() else size


def _check(resize: Any, crop: Any, interpolation: Any, mean: Any, std: Any, rescale: Any) -> None:
    """Refuse what `Preprocess` can't do; a config may have anything in its fields."""
    if interpolation not in INTERPOLATIONS:
        known = ", ".join(f"{kind} ({mode['mode']})" for kind, mode in INTERPOLATIONS.items())
        raise ResidualError(f"Resampling filter {interpolation} isn't known. Known: {known}.")
    sides = [*(resize if isinstance(resize, tuple) else [resize or 1]), *(crop or ())]
    if not all(isinstance(side, int) and 1 <= side <= _MOST_SIDE for side in sides):
        raise ResidualError(f"A picture's side is a number of pixels up to {_MOST_SIDE}, got {sides}.")
    numbers = [*mean, *std, rescale]
    finite = all(isinstance(number, int | float) and abs(number) < _LARGE for number in numbers)
    if len(mean) != 3 or len(std) != 3 or 0 in numbers[3:] or not finite:
        raise ResidualError(
            f"Three means, three standard deviations and a factor that aren't 0 normalise a picture, got "
            f"{mean}, {std} and {rescale}."
        )


def check_resized(pixels: int | float) -> None:
    """Refuse a picture that would be too large once it is resized.

    Raises:
        ResidualError: it would.
    """
    if pixels > MOST_PIXELS:
        raise ResidualError(
            f"resized for its encoder it would have over {MOST_PIXELS / 1e6:.0f} million pixels: crop it, or "
            "mend the encoder's preprocessing"
        )


def bytes_of(image: Image.Image) -> UInt8[Tensor, "3 h w"]:
    """An RGB image as a tensor."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def colours(image: Image.Image) -> Image.Image:
    """Those alone; white behind what transformers takes for transparent, which a palette with alpha isn't."""
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        return on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def center_crop(pixels: Tensor, height: int, width: int) -> Tensor:
    """The middle `height` by `width`; black around an image that is smaller. Rounds as transformers does."""
    tall, wide = max(height - pixels.shape[-2], 0), max(width - pixels.shape[-1], 0)
    pixels = torch.nn.functional.pad(pixels, (wide // 2, (wide + 1) // 2, tall // 2, (tall + 1) // 2))
    top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
    return pixels[..., top : top + height, left : left + width]


def _usual(folder: Path) -> str:
    """The image processor of the kind of model in a folder, for old files that don't name one."""
    config = folder / "config.json"
    known = parse_json(read_regular(config, _MOST_JSON), config.name) if config.is_file() else {}
    kind = known.get("model_type", "")
    family = kind.partition("_")[0]
    return f"{_PROCESSORS.get(family, 'CLIP')}ImageProcessor"


def _defaults(processor: str | None) -> Any:
    """The class of an image processor, which holds its defaults; CLIP's where it isn't said. The one for PIL
    has those of the other, which needs torchvision.
    """
    import transformers

    name = (processor or "CLIPImageProcessor").removesuffix("Fast").removesuffix("Pil")
    name = name.replace("FeatureExtractor", "ImageProcessor")
    if name == "DINOv3ViTImageProcessor":
        return _DINOV3
    found = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name, None)
    if found is None or not name.endswith("ImageProcessor"):
        raise ResidualError(f"The image processor {processor!r} isn't known to this transformers.")
    return found
