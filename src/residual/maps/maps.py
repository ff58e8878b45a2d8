"""Maps on the patch grid, with all that they leave out: what they show and the rest is the whole score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from residual.errors import ResidualError
from residual.tracing.sources import Tokens

WAYS = ("bilinear", "nearest")
_BRIGHTEST = 0.99  # of all cells of a set, the share that colours tell apart


@dataclass(frozen=True, eq=False)
class Maps:
    """`m` maps of each of `n` pictures; for each, `values.sum() + elsewhere + rest` is `total`.

    Args:
        values: what each patch adds, with its sign, row by row from the top left.
        elsewhere: what the same heads read off the class token and registers, which have no place.
        rest: what all other units add: the MLPs, the embedding, and heads that aren't asked for; of the score
            on a component, less that of the head's mean.
        total: the score that is explained.
        names: of the maps.
        of: what the score is: "cosine", "logit" or "score" (of a component).

    Example:
        >>> import torch
        >>> sums = torch.tensor([[[0.5]], [[1.0]], [[0.5]]])
        >>> maps = Maps(torch.tensor([[[[1.0, -2.0]]]]), *sums, ("a cat",))
        >>> maps
        Maps(1 picture, 1 map on 1 by 2 patches: a cat)
        >>> maps.scale
        2.0
    """

    values: Float[Tensor, "n m rows cols"]
    elsewhere: Float[Tensor, "n m"]
    rest: Float[Tensor, "n m"]
    total: Float[Tensor, "n m"]
    names: tuple[str, ...]
    of: str = "cosine"

    @property
    def shown(self) -> Float[Tensor, "n m"]:
        """What the heads of a map add in all, with its place or without."""
        return self.values.sum((-2, -1)) + self.elsewhere

    @cached_property
    def scale(self) -> float:
        """One for the whole set: the size of a value at which colours are full. One cell in a hundred may be
        beyond; 0 where all are.
        """
        return scale_of(self.values)

    def take(self, pictures: Sequence[int] | None = None, maps: Sequence[int] | None = None) -> Maps:
        """Some of the pictures and some of the maps, in this order."""
        rows = list(range(len(self.values)) if pictures is None else pictures)
        places = list(range(len(self.names)) if maps is None else maps)
        parts = (each[rows][:, places] for each in (self.values, self.elsewhere, self.rest, self.total))
        return Maps(*parts, tuple(self.names[place] for place in places), self.of)

    def largest(self, k: int) -> list[int]:
        """The places of the `k` maps whose heads add or take most, in the mean over pictures; most first."""
        return self.shown.mean(0).abs().argsort(descending=True, stable=True)[:k].tolist()

    def resized(self, size: tuple[int, int], way: str = "bilinear") -> Float[Tensor, "n m height width"]:
        """Values at each pixel of what the encoder saw, `(height, width)`; "bilinear" or "nearest".

        Raises:
            ResidualError: another way.
        """
        return resized(self.values, size, way)

    def to_json(self) -> list[list[dict[str, Any]]]:
        """For each picture its maps: `name`, `values` row by row, `elsewhere`, `rest` and `total`."""
        parts = [
            each.detach().cpu().tolist() for each in (self.values, self.elsewhere, self.rest, self.total)
        ]
        keys = ("name", "values", "elsewhere", "rest", "total")
        return [
            [dict(zip(keys, each, strict=True)) for each in zip(self.names, *picture, strict=True)]
            for picture in zip(*parts, strict=True)
        ]

    def __repr__(self) -> str:
        n, m, rows, cols = self.values.shape
        few = ", ".join(self.names[:3]) + (", …" if m > 3 else "")
        counts = f"{n} picture{'s' * (n > 1)}, {m} map{'s' * (m > 1)}"
        return f"Maps({counts} on {rows} by {cols} patches: {few})"


def scale_of(values: Tensor) -> float:
    """See `Maps.scale`."""
    sizes = values.detach().abs().flatten().double().sort().values
    return float(sizes[min(len(sizes) - 1, int(_BRIGHTEST * len(sizes)))])


def resized(
    values: Float[Tensor, "n m rows cols"], size: tuple[int, int], way: str = "bilinear"
) -> Float[Tensor, "n m height width"]:
    """See `Maps.resized`; nothing is smoothed where that is smaller than the grid."""
    if way not in WAYS:
        raise ResidualError(f"Maps are resized {' or '.join(map(repr, WAYS))}, got {way!r}.")
    if way == "nearest":
        return interpolate(values, size, mode="nearest-exact")
    return interpolate(values, size, mode="bilinear", align_corners=False)


def on_grid(values: Float[Tensor, "*n j"], tokens: Tokens) -> Float[Tensor, "*n rows cols"]:
    """Of values of all tokens those of the patches, as these lie in the picture.

    Raises:
        ResidualError: they are on no grid.
    """
    if tokens.grid is None:
        raise ResidualError("The tokens of this encoder are on no grid, so there is no map.")
    return values[..., tokens.patches].unflatten(-1, tokens.grid)
