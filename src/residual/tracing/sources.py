"""Where a head's contribution comes from: the tokens that it attends to, class token, registers and patches.

A head's numbers at a token are a sum over the tokens attended to, `z = Σ_j a_j v_j`, and a contribution is
affine in `z`, so it splits once more, exactly. What is asked for is all that is made: of some directions `w`,
`⟨c_uj, w⟩` layer by layer, never the contributions `(n, L, H, j, d)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.encoders.anatomy import Parts
from residual.encoders.changes import EncoderLike, checked_encoder
from residual.encoders.encoder import Encoder
from residual.encoders.pixels import Pixels
from residual.errors import ResidualError
from residual.tracing.attention import LayerSources
from residual.tracing.capture import without_autocast
from residual.tracing.checks import TOLERANCES, check_sum, computed_in
from residual.tracing.coordinates import Coordinates, SourcedCoordinates
from residual.tracing.linearization import Linearization, linearization_of
from residual.tracing.trace import Texts, traced
from residual.tracing.units import UnitsLike


@dataclass(frozen=True)
class Tokens:
    """What the tokens are that heads attend to, in their order.

    Args:
        kinds: of each "class", "register" (or another token ahead of the patches, as DeiT's for distillation)
            or "patch"; of a text "word".
        grid: rows and columns of patches; None of a text.

    Example:
        >>> Tokens(("class", "patch", "patch"), (1, 2)).patches
        [1, 2]
    """

    kinds: tuple[str, ...]
    grid: tuple[int, int] | None

    @property
    def patches(self) -> list[int]:
        """Positions of the patches, row by row."""
        return [position for position, kind in enumerate(self.kinds) if kind == "patch"]

    def __len__(self) -> int:
        return len(self.kinds)


@dataclass(frozen=True, repr=False, eq=False)
class SourceScores:
    """What heads write along some directions, by the token that they have it from.

    With an attention pool, which makes several sums of tokens, `values` holds these together; `attention` has
    an axis of the pool's heads.

    Args:
        values: `⟨c_uj, w⟩`, which sum to `totals` over `j`.
        totals: `⟨c_u, w⟩`: what the head writes along `w`, by its coordinates.
        output: the model's own.
        rest: `⟨o, w⟩` less that of all heads: what the embedding and the MLPs write along `w`. None where
            each unit has directions of its own.
        attention: the weights `a_j` of these heads.
        tokens: what those are that are attended to.
        units: one row a head, in the order of the axis `u`.
    """

    values: Float[Tensor, "n *t u c j"]
    totals: Float[Tensor, "n *t u c"]
    output: Float[Tensor, "n *t d"]
    rest: Float[Tensor, "n *t c"] | None
    attention: Float[Tensor, "n *p u j"]
    tokens: Tokens
    units: pd.DataFrame

    def __repr__(self) -> str:
        n, *_, units, directions, tokens = self.values.shape
        return f"SourceScores({n} samples, {units} heads, {directions} directions, {tokens} tokens)"


def source_scores(
    encoder: EncoderLike,
    inputs: Pixels | Texts,
    directions: Float[Tensor, "c d"] | Float[Tensor, "u c d"],
    units: UnitsLike | None = None,
    *,
    tower: str = "image",
    pooling: str = "own",
) -> SourceScores:
    """What heads write along directions of the output, by the token that they have it from.

    `⟨c_uj, w⟩` with `Σ_j c_uj = c_u` (`decompose`): what a head has from token `j` is `a_j v_j` through its
    map. What depends on no token (biases, the common terms of the last norm) is spread evenly over the tokens
    that may be attended to, as the paper spreads common terms over units (Basile et al. 2025, arXiv
    2411.00246). Of tokens that are pooled, `a_j` is the mean by their shares.

    Beside what `trace` keeps, no more is held than the result and one layer. The encoder runs uncompiled, and
    twice where it pools several normed tokens (by average or attention): their shares are known at the end.

    Args:
        encoder: as `decompose` takes it: also adapted or without some units.
        inputs: pixels from `encoder.pixels`; for the text tower texts, or their token ids.
        directions: of the output: `(c, d)`, as the weights of a classifier; or for each of `units` its own.
        units: heads, see `Units.checked`; all by default.
        tower: "image" or "text".
        pooling: see `decompose`.

    Raises:
        ResidualError: a unit that is no head, directions of another width; what `decompose` refuses; or
            attention that can't be seen, or misses what a head gives.

    Example:
        >>> import residual
        >>> encoder = residual.load_encoder("picto", device="cpu")
        >>> words = encoder.encode_text(["a photo of stripes"]).detach()
        >>> scores = source_scores(encoder, torch.rand(2, 3, 64, 64), words, ["7.2", "6.4"])
        >>> scores
        SourceScores(2 samples, 2 heads, 1 directions, 65 tokens)
        >>> scores.values[:, 0, 0, scores.tokens.patches].unflatten(-1, scores.tokens.grid).shape
        torch.Size([2, 8, 8])
    """
    encoder = checked_encoder(encoder)
    parts = encoder.parts_of(tower)
    linearization = linearization_of(encoder, parts, tower, pooling)
    heads = linearization.units.of_field["z"]
    chosen = list(heads) if units is None else linearization.units.checked(units)
    if others := [linearization.units.name(unit) for unit in chosen if unit not in heads]:
        raise ResidualError(f"Heads attend to tokens, and {others[0]} is none.")
    with torch.no_grad():
        gathered = _Gathered(linearization, chosen, _checked(directions, linearization, chosen))
        coordinates, output = traced(encoder, inputs, tower, pooling, parts, gathered.take)
        check_sum(encoder, linearization, coordinates, output)
        with without_autocast(output.device):
            values = gathered.values(coordinates)
            totals, all_heads = gathered.totals(coordinates)
            _check(encoder, values, totals)
            rest = None
            if gathered.directions.ndim == 2:
                rest = (output.to(all_heads) - all_heads) @ gathered.directions.to(all_heads).T
    return SourceScores(
        values=values,
        totals=totals,
        output=output,
        rest=rest,
        attention=gathered.attention,
        tokens=tokens_of(parts, tower, inputs, values.shape[-1]),
        units=linearization.units.table.iloc[chosen].reset_index(drop=True),
    )


def source_contributions(
    linearization: Linearization, coordinates: SourcedCoordinates, units: Sequence[int]
) -> Float[Tensor, "n *t u j d"]:
    """`c_uj` of heads, in full."""
    sources, spread = coordinates.field("sources"), coordinates.field("spread")
    like, made = coordinates.mean, []
    for unit in units:
        layer, head = linearization.units.layer_head(unit)
        matrix, offset = linearization.map_of(unit, like.dtype, like.device)
        own = sources[..., layer, head, :, :].to(like)  # (n, …, j, h)
        even = spread[..., layer, head, :, None].to(like)  # (n, …, j, 1)
        mean, std = (value[..., None, None] for value in (coordinates.mean, coordinates.std))
        features = torch.cat([own, even, mean * even], dim=-1) / std
        if linearization.attends:
            features, even = features.transpose(1, 2).flatten(2), even.mean(1)
        made.append(features @ matrix + even * offset)
    return torch.stack(made, dim=-3)


class _Gathered:
    """The scores of some heads, layer by layer.

    Args:
        linearization: of the encoder.
        units: positions of heads.
        directions: `(c, d)`, or `(u, c, d)`, on the CPU in float64.
    """

    def __init__(self, linearization: Linearization, units: Sequence[int], directions: Tensor):
        self.linearization, self.units, self.directions = linearization, units, directions
        self._raw: dict[int, Tensor] = {}  # of each unit, (n, …, c, j), over s only where that was known
        self._constant: dict[int, Tensor] = {}  # (n, …, c), the same
        self._spread: dict[int, Tensor] = {}  # (n, …, j)
        self._attention: dict[int, Tensor] = {}

    def take(self, index: int, layer: LayerSources) -> None:
        """The scores of one layer's heads."""
        for place, unit in enumerate(self.units):
            at, head = self.linearization.units.layer_head(unit)
            if at == index:
                self._head(place, unit, head, layer)

    def _head(self, place: int, unit: int, head: int, layer: LayerSources) -> None:
        weights, values = layer.weights[..., head, :], layer.values[:, head]  # (n, …, j), (n, j, h)
        self._attention[place] = layer.attention[..., head, :].clone()
        spread = layer.spread[..., head, :].clone()
        constant = None if layer.constant is None else layer.constant[..., head, :]
        maps = self._maps(place, unit, weights)[:, :-2]  # (P, h, c)
        if layer.std is None or not self.linearization.attends:
            along = torch.einsum("njw,wc->ncj", values, maps[0])
            self._raw[place] = weights[..., None, :] * _beside(along, weights.ndim + 1)
            if constant is not None:
                self._constant[place] = constant @ maps[0]
        else:
            weights = weights / layer.std[..., None]
            raw = weights.new_zeros(len(values), maps.shape[-1], values.shape[1])
            for p, map_of_p in enumerate(maps):  # one by one: of many classes each is as large as the result
                raw += weights[:, p, None, :] * torch.einsum("njw,wc->ncj", values, map_of_p)
            self._raw[place] = raw
            if constant is not None:
                self._constant[place] = torch.einsum("npw,pwc->nc", constant / layer.std[..., None], maps)
        self._spread[place] = spread

    def _maps(self, place: int, unit: int, like: Tensor) -> Float[Tensor, "P f c"]:
        """From a head's features to its scores."""
        matrix, _ = self.linearization.map_of(unit, like.dtype, like.device)
        return (matrix @ self._along(place, like)).unflatten(0, (self.linearization.pool_heads, -1))

    def _along(self, place: int, like: Tensor) -> Float[Tensor, "d c"]:
        directions = self.directions if self.directions.ndim == 2 else self.directions[place]
        return directions.to(like).T

    def values(self, coordinates: Coordinates) -> Float[Tensor, "n *t u c j"]:
        """Over `s`, and with what depends on no token."""
        like, made = coordinates.mean, []
        for place, unit in enumerate(self.units):
            raw, spread = self._raw.pop(place).to(like), self._spread[place].to(like)
            maps = self._maps(place, unit, like)[:, -2:]  # (P, 2, c)
            common = torch.stack([torch.ones_like(like), like], dim=-1) / coordinates.std[..., None]
            constant = self._constant.get(place)
            if self.linearization.attends:
                even = torch.einsum("npf,pfc,npj->ncj", common, maps, spread)
                spread = spread.mean(1)
                values = raw + even
            else:
                std = coordinates.std[..., None]
                values = raw / std[..., None] + (common @ maps[0])[..., None] * spread[..., None, :]
                constant = None if constant is None else constant / std
            offset = self.linearization.map_of(unit, like.dtype, like.device)[1] @ self._along(place, like)
            offset = offset if constant is None else offset + constant
            made.append(values + offset[..., None] * spread[..., None, :])
        return torch.stack(made, dim=-3)

    @property
    def attention(self) -> Float[Tensor, "n *p u j"]:
        """Of each unit."""
        return torch.stack([self._attention[place] for place in range(len(self.units))], dim=-2)

    def totals(self, coordinates: Coordinates) -> tuple[Float[Tensor, "n *t u c"], Float[Tensor, "n *t d"]]:
        """What the units write along the directions, by their coordinates; and the sum of all heads."""
        of_units: dict[int, Tensor] = {}
        all_heads = None
        for unit in self.linearization.units.of_field["z"]:
            written = self.linearization.contributions(coordinates, [unit])[..., 0, :]
            all_heads = written if all_heads is None else all_heads + written
            for place, each in enumerate(self.units):
                if each == unit:
                    of_units[place] = written @ self._along(place, written)
        if all_heads is None:
            raise ResidualError("There are no heads.")
        return torch.stack([of_units[place] for place in range(len(self.units))], dim=-2), all_heads


def _beside(along: Float[Tensor, "n c j"], axes: int) -> Tensor:
    """With an axis of tokens, where there is one beside."""
    return along[:, None] if axes == 4 else along


def _checked(directions: Tensor, linearization: Linearization, units: Sequence[int]) -> Tensor:
    """Directions on the CPU in float64.

    Raises:
        ResidualError: they don't fit.
    """
    directions = torch.as_tensor(directions).detach()
    width = linearization.output_dim
    fits = directions.ndim == 2 or (directions.ndim == 3 and len(directions) == len(units))
    if not fits or directions.shape[-1] != width:
        raise ResidualError(
            f"Directions are (c, {width}), or ({len(units)}, c, {width}) with those of each unit; got "
            f"{tuple(directions.shape)}."
        )
    return directions


def _check(encoder: Encoder, values: Float[Tensor, "n *t u c j"], totals: Tensor) -> None:
    """Hold scores by source against those by coordinates.

    Raises:
        ResidualError: they miss them.
    """
    tolerance = TOLERANCES[computed_in(encoder)]
    miss, norm = (values.sum(-1) - totals).norm(), values.abs().sum(-1).norm()
    if not miss <= tolerance * norm:
        raise ResidualError(
            f"{encoder.name}: the sum over tokens misses what heads write along the directions by "
            f"{(miss / norm).item():.1e} of it (allowed {tolerance:.0e})."
        )


def tokens_of(parts: Parts, tower: str, inputs: Pixels | Texts, count: int) -> Tokens:
    """What the `count` tokens are that a tower's heads attend to."""
    if tower == "text":
        return Tokens(("word",) * count, None)
    first = ["class"] * parts.class_token
    first += ["register"] * (parts.prefix - len(first))
    kinds = first + ["patch"] * (count - len(first))
    return Tokens(tuple(kinds), grid_of(np.shape(inputs)[-2:], count - len(first)))


def grid_of(size: Sequence[int], patches: int) -> tuple[int, int] | None:
    """Rows and columns of so many square patches of a picture `(height, width)`; None if they are none."""
    for side in range(1, min(size) + 1):
        rows, columns = (length // side for length in size)
        if rows * columns == patches:
            return rows, columns
    return None
