"""A loaded vision (and text) encoder: the one object that the rest of the library takes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from residual.encoders.anatomy import Anatomy, Parts
from residual.encoders.family import Family
from residual.encoders.preprocess import Preprocess
from residual.errors import ResidualError

Split = Literal["shared", "own"]
SPLITS = ("shared", "own")
_TEXTS_AT_ONCE = 256


class Encoder:
    """A model, how its towers are called, and where its parts are. Made by `load_encoder` or `wrap_encoder`.

    Args:
        name: how messages and files call it.
        module: the model; it is put into evaluation mode, its parameters are left as they are.
        family: what kind of model it is.
        preprocess: from a PIL image to pixels.
        tokenize: from texts to token ids `(n, t)`, or None where there is no tokenizer.
        split: how the last LayerNorm's mean is shared out among units: "shared", evenly as in the paper, or
            "own", each unit loses its own mean.

    Raises:
        ResidualError: the module lacks parts of the family's anatomy, or `split` isn't known.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        family: Family,
        preprocess: Preprocess,
        tokenize: Callable[[list[str]], Tensor] | None = None,
        split: str = "shared",
    ):
        if split not in SPLITS:
            raise ResidualError(f"Split {split!r} isn't known. Known: {', '.join(SPLITS)}.")
        self.name = name
        self.module = module.eval()
        self.family = family
        self.preprocess = preprocess
        self.split = split
        self.parts: Parts = family.anatomy.locate(module)
        self._tokenize = tokenize

    @property
    def anatomy(self) -> Anatomy:
        """Where the parts of the vision tower are."""
        return self.family.anatomy

    @property
    def output_dim(self) -> int:
        """Width of the output, `d`."""
        projection = self.parts.projection
        return self.parts.width if projection is None else projection.out_features

    @property
    def image_size(self) -> int:
        """Side of the square image that the model takes."""
        return self.family.image_size(self.module)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.parts.final_norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are kept in."""
        return self.parts.final_norm.weight.dtype

    @property
    def has_text(self) -> bool:
        """Whether `encode_text` can be called."""
        return self.family.encode_text is not None and self._tokenize is not None

    @property
    def logit_scale(self) -> float | None:
        """Logarithm of the factor on cosine similarities; None without a text tower."""
        return None if self.family.logit_scale is None else self.family.logit_scale(self.module)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the vision side: the weights, as float32, and the settings that change the output."""
        digest = hashlib.sha256(self.family.settings(self.module).encode())
        for name, value in sorted(self.module.state_dict().items()):
            if name.startswith(self.family.vision):
                digest.update(f"{name} {tuple(value.shape)}".encode())
                digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> Encoder:
        """Move the model (in place) and give the encoder back."""
        self.module.to(device=device, dtype=dtype)
        self.__dict__.pop("fingerprint", None)
        return self

    def encode_image(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """The model's own image output, not normalised. Gradients flow unless the caller turns them off.

        Raises:
            ResidualError: the images aren't of the model's size.
        """
        size = self.image_size
        if pixels.shape[-2:] != (size, size):
            raise ResidualError(
                f"{self.name} takes images of {size} by {size} pixels, got {pixels.shape[-2]} by "
                f"{pixels.shape[-1]}: run them through encoder.preprocess first."
            )
        return self.family.encode_image(self.module, pixels.to(self.device, self.dtype))

    def encode_text(self, texts: Sequence[str]) -> Float[Tensor, "c d"]:
        """The model's own text output, not normalised.

        Raises:
            ResidualError: there is no text tower or no tokenizer, or no text.
        """
        if isinstance(texts, str):
            raise ResidualError(f"encode_text takes a list of texts, got one string: {texts!r}.")
        if not texts:
            raise ResidualError("encode_text takes at least one text, got none.")
        if self.family.encode_text is None:
            raise ResidualError(f"{self.name} ({self.family.name}) has no text tower.")
        ids = self.tokenize(texts)
        chunks = [self.family.encode_text(self.module, part) for part in ids.split(_TEXTS_AT_ONCE)]
        return torch.cat(chunks)

    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "c t"]:
        """Token ids, padded to the context length and cut there."""
        if self._tokenize is None:
            raise ResidualError(f"{self.name} has no tokenizer: its folder holds none, or none was given.")
        return self._tokenize(list(texts)).to(self.device)

    def pixels(self, images: Sequence[Image.Image]) -> Float[Tensor, "n 3 h w"]:
        """`preprocess` over several images, stacked."""
        return torch.stack([self.preprocess(image) for image in images])

    def __repr__(self) -> str:
        parts = self.parts
        return (
            f"Encoder({self.name!r}, {self.family.name}, {len(parts.blocks)} layers of {parts.heads} heads, "
            f"{parts.width} -> {self.output_dim})"
        )
