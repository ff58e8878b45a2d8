"""Where a head's contribution comes from: the tokens that it attends to, class token, registers and patches.

A head's numbers at a token are a sum over the tokens attended to, `z = Σ_j a_j v_j`, and a contribution is
affine in `z`, so it splits once more, exactly. What is asked for is all that is made: of some directions `w`,
`⟨c_uj, w⟩` layer by layer, never the contributions `(n, L, H, j, d)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isqrt

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from residual.encoders.anatomy import Parts
from residual.encoders.changes import EncoderLike, checked_encoder
from residual.encoders.encoder import Encoder
from residual.encoders.pixels import Pixels
from residual.encoders.pooling import EndPool
from residual.errors import ResidualError
from residual.tracing.attention import LayerSources
from residual.tracing.capture import without_autocast
from residual.tracing.checks import check_sum
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
        words: of each text its tokens as they are read, "" behind its end; None of pictures, and where only
            ids were given.

    Example:
        >>> Tokens(("class", "patch", "patch"), (1, 2)).patches
        [1, 2]
    """

    kinds: tuple[str, ...]
    grid: tuple[int, int] | None
    words: tuple[tuple[str, ...], ...] | None = None

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

    Beside what `decompose` holds without contributions, there is no more than the result and one layer. The
    encoder runs uncompiled, and twice where it pools several normed tokens (by average or attention): their
    shares are known at the end.

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
        along = _checked(directions, linearization, chosen).to(encoder.device)
        gathered = _Gathered(linearization, chosen, along)
        coordinates, output = traced(encoder, inputs, tower, pooling, parts, gathered.take)
        check_sum(encoder, linearization, coordinates, output)
        with without_autocast(output.device):
            totals, all_heads = gathered.finish(coordinates)
            others = output.to(all_heads) - all_heads
            rest = others @ along.to(others).T if along.ndim == 2 else None
    return SourceScores(
        values=gathered.values,
        totals=totals,
        output=output,
        rest=rest,
        attention=gathered.attention,
        tokens=tokens_of(encoder, parts, tower, inputs, gathered.values.shape[-1]),
        units=linearization.units.table.iloc[chosen].reset_index(drop=True),
    )


def attention_weights(
    encoder: EncoderLike, inputs: Pixels | Texts, *, tower: str = "image", pooling: str = "own"
) -> Float[Tensor, "n *t l h j"]:
    """How much each head attends to each token, `a_j`, in all layers: for less than `trace` with sources.

    Args:
        encoder, inputs, tower, pooling: see `decompose`; `pooling="all"` gives every token's.

    Raises:
        ResidualError: what `source_scores` refuses.

    Example:
        >>> import residual
        >>> encoder = residual.load_encoder("picto", device="cpu")
        >>> attention_weights(encoder, torch.zeros(2, 3, 64, 64), pooling="all").shape
        torch.Size([2, 65, 8, 6, 65])
    """
    encoder, layers = checked_encoder(encoder), []
    with torch.no_grad():
        traced(encoder, inputs, tower, pooling, take=lambda _, layer: layers.append(layer.attention))
    return torch.stack(layers, dim=-3)


def source_contributions(
    linearization: Linearization,
    coordinates: SourcedCoordinates,
    units: Sequence[int],
    contributions: Float[Tensor, "n *t u d"],
) -> Float[Tensor, "n *t u j d"]:
    """`c_uj` of heads, in full: of what in their contributions is from no token, each token has its share."""
    sources, spread = coordinates.field("sources"), coordinates.field("spread")
    like, made = coordinates.mean, []
    for place, unit in enumerate(units):
        layer, head = linearization.units.layer_head(unit)
        matrix, _ = linearization.map_of(unit, like.dtype, like.device)
        matrix = matrix.unflatten(0, (linearization.pool_heads, -1))[:, :-2].flatten(0, 1)
        own = sources[..., layer, head, :, :].to(like) / coordinates.std[..., None, None]  # (n, …, j, h)
        even = spread[..., layer, head, :, None].to(like)  # (n, …, j, 1)
        if linearization.attends:
            own, even = own.transpose(1, 2).flatten(2), even.mean(1)
        own = own @ matrix
        left = contributions[..., place, :] - own.sum(-2)
        made.append(own + even * left[..., None, :])
    return torch.stack(made, dim=-3)


class _Gathered:
    """The scores of some heads, layer by layer.

    Args:
        linearization: of the encoder.
        units: positions of heads.
        directions: `(c, d)`, or `(u, c, d)`.

    Attributes:
        values, attention: see `SourceScores`; the former in full once `finish` was called.
    """

    def __init__(self, linearization: Linearization, units: Sequence[int], directions: Tensor):
        self.linearization, self.units, self.directions = linearization, units, directions
        self.values = self.attention = self._spread = torch.empty(0)

    def take(self, index: int, layer: LayerSources) -> None:
        """The scores of one layer's heads: `w_j ⟨v_j M, w⟩`."""
        if not len(self._spread):
            self._make_room(layer)
        for place, unit in enumerate(self.units):
            at, head = self.linearization.units.layer_head(unit)
            if at == index:
                self.attention[..., place, :] = layer.attention[..., head, :]
                self._spread[..., place, :] = layer.spread[..., head, :]
                self._take(self.values[..., place, :, :], place, unit, head, layer)

    def _make_room(self, layer: LayerSources) -> None:
        n, *tokens, _, attended = layer.weights.shape
        self._spread, self.attention = (
            layer.weights.new_zeros(n, *tokens, len(self.units), attended) for _ in range(2)
        )
        tokens = [] if self.linearization.attends else tokens
        shape = n, *tokens, len(self.units), self.directions.shape[-2], attended
        self.values = layer.weights.new_zeros(shape)

    def _take(self, values: Tensor, place: int, unit: int, head: int, layer: LayerSources) -> None:
        weights, tokens = layer.weights[..., head, :], layer.values[:, head]  # (n, …, j), (n, j, h)
        matrix, _ = self.linearization.map_of(unit, tokens.dtype, tokens.device)
        maps = (matrix @ self._along(place, tokens)).unflatten(0, (self.linearization.pool_heads, -1))
        for pool_head, to_scores in enumerate(maps[:, :-2]):  # each is as large as what is given of this head
            scores = torch.einsum("njw,wc->ncj", tokens, to_scores)
            if not self.linearization.attends:
                values += weights[..., None, :] * (scores[:, None] if weights.ndim == 3 else scores)
            elif layer.std is not None:
                values += (weights / layer.std[..., None])[:, pool_head, None] * scores

    def _along(self, place: int, like: Tensor) -> Float[Tensor, "d c"]:
        return (self.directions if self.directions.ndim == 2 else self.directions[place]).to(like).T

    def finish(self, coordinates: Coordinates) -> tuple[Float[Tensor, "n *t u c"], Float[Tensor, "n *t d"]]:
        """What the heads write along the directions in all, by their coordinates: `values` get what of it is
        from no token; and the sum of all heads.
        """
        totals = self.values.new_zeros(self.values.shape[:-1])
        all_heads = totals.new_zeros(*totals.shape[:-2], self.linearization.output_dim)
        for unit in self.linearization.units.of_field["z"]:
            written = self.linearization.contributions(coordinates, [unit])[..., 0, :]
            all_heads += written
            for place in [place for place, each in enumerate(self.units) if each == unit]:
                totals[..., place, :] = written @ self._along(place, written)
        spread = self._spread.mean(1) if self.linearization.attends else self._spread
        for place in range(len(self.units)):
            values = self.values[..., place, :, :]
            if not self.linearization.attends:
                values /= coordinates.std[..., None, None]
            left = totals[..., place, :] - values.sum(-1)
            values += spread[..., place, None, :] * left[..., None]
        return totals, all_heads


def _checked(directions: Tensor, linearization: Linearization, units: Sequence[int]) -> Tensor:
    """Directions as a tensor of their own.

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


def tokens_of(encoder: Encoder, parts: Parts, tower: str, inputs: Pixels | Texts, count: int) -> Tokens:
    """What the `count` tokens are that a tower's heads attend to."""
    if tower == "text":
        return Tokens(("word",) * count, None, _words(encoder, parts, inputs))
    first = ["class"] * parts.class_token
    first += ["register"] * (parts.prefix - len(first))
    kinds = first + ["patch"] * (count - len(first))
    size, patches = np.shape(inputs)[-2:], count - len(first)
    return Tokens(tuple(kinds), _convolved(encoder.module, size, patches) or grid_of(size, patches))


def _words(encoder: Encoder, parts: Parts, texts: Pixels | Texts) -> tuple[tuple[str, ...], ...] | None:
    decode = getattr(encoder._tokenize, "decode", None)
    if decode is None or isinstance(texts, Tensor | np.ndarray):
        return None
    ids = encoder.tokenize(texts)
    pool, last = parts.pool, [ids.shape[1] - 1] * len(ids)
    if isinstance(pool, EndPool):
        last = pool.position(encoder.module, ids).tolist()
    return tuple(
        tuple(decode([each]).strip() if place <= end else "" for place, each in enumerate(row))
        for row, end in zip(ids.tolist(), last, strict=True)
    )


def _convolved(module: nn.Module, size: Sequence[int], patches: int) -> tuple[int, int] | None:
    """Rows and columns that the convolution of a picture's pixels makes, if it makes so many patches."""
    stems = (each for each in module.modules() if isinstance(each, nn.Conv2d) and each.in_channels == 3)
    stem = next(stems, None)
    if stem is None or isinstance(stem.padding, str):
        return None
    rows, columns = (
        (length + 2 * around - wide) // step + 1
        for length, around, wide, step in zip(size, stem.padding, stem.kernel_size, stem.stride, strict=True)
    )
    return (rows, columns) if rows * columns == patches else None


def grid_of(size: Sequence[int], patches: int) -> tuple[int, int] | None:
    """Rows and columns of so many patches of a picture `(height, width)`: square ones, cut off or padded at
    its edges, or as many rows as columns of a square; None if they are none of these.
    """
    for rounded in (floor, ceil):
        for side in range(1, min(size) + 1):
            rows, columns = (rounded(length / side) for length in size)
            if rows * columns == patches:
                return rows, columns
    side = isqrt(patches)
    return (side, side) if size[0] == size[1] and side * side == patches else None
