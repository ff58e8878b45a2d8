"""Split what an encoder outputs into the contributions of its units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.encoders.anatomy import Parts
from residual.encoders.encoder import Encoder
from residual.encoders.pixels import Pixels
from residual.encoders.running import uncompiled
from residual.encoders.wrappers import adapters_in
from residual.errors import ResidualError
from residual.hashing import bit_sums
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.trace import Texts, traced
from residual.tracing.units import KINDS

# How far the sum of units may be from the model's own output, by the precision of the model.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}

# What additions to the stream may lose in half precision: 0.16 % each in bfloat16, at random, so 3 % in all
# after some 150 blocks.
ROUNDING = 3e-2


@dataclass(frozen=True)
class Decomposition:
    """Contributions `(n, t, u, d)` of the units that were asked for, and the model's own output `(n, t, d)`.

    `units` has one row for each contribution, in order; its column `unit` is the position among all units.
    `coordinates` are the small numbers behind them, and `linearization` the exact map from those.
    """

    contributions: Float[Tensor, "n t u d"]
    output: Float[Tensor, "n t d"]
    units: pd.DataFrame
    coordinates: Coordinates = field(repr=False)
    linearization: Linearization = field(repr=False)


def decompose(
    encoder: Encoder,
    pixels: Pixels | Texts,
    pooling: str = "own",
    kinds: Sequence[str] = KINDS,
    *,
    tower: str = "image",
    grad: bool = False,
) -> Decomposition:
    """Split a tower's output into units: `Σ_u c_u` is the output, exactly (see `Linearization`).

    Args:
        encoder: from `load_encoder` or `wrap_encoder`.
        pixels: from `encoder.pixels`, of torch or NumPy; for the text tower texts, or their token ids.
        pooling: which tokens' output.
            "own": what the encoder does itself (class token, average, attention pool, end of text);
            "cls": the class token;
            "avg", "avg:all": the mean over the patches, or over all tokens, normed where the encoder norms
            if it averages itself, else each token before;
            "all", "patches", "token:INDEX": each of those tokens, normed and projected as the encoder does
            the token it pools (past an attention pool: normed, and projected if the pool's output is); the
            result keeps the token axis.
        kinds: which kinds of unit to give: "emb", "mlp", "head".
        tower: "image" or "text".
        grad: let gradients flow to the inputs (and to whatever the coordinates depend on; the map from
            them to contributions is constant). By default none are kept.

    Raises:
        ResidualError: an unknown pooling, kind or tower; or the sum of all units misses the model's own
            output.

    Example:
        >>> import residual
        >>> encoder = residual.load_encoder("picto", device="cpu")
        >>> split = decompose(encoder, torch.rand(2, 3, 64, 64))
        >>> split.contributions.shape  # images, tokens, units, width of the output
        torch.Size([2, 1, 57, 192])
        >>> torch.allclose(split.contributions.sum(2), split.output, atol=1e-4)
        True
        >>> split.units["kind"].value_counts().to_dict()
        {'head': 48, 'mlp': 8, 'emb': 1}
    """
    if grad and torch.is_inference_mode_enabled():
        raise ResidualError(
            "There are no gradients inside torch.inference_mode(): leave it, or leave out grad."
        )
    parts = encoder.parts_of(tower)
    linearization = _linearization(encoder, parts, tower, pooling)
    chosen = linearization.units.positions(kinds)
    with torch.set_grad_enabled(grad):
        coordinates, output = traced(encoder, pixels, tower, pooling, parts)
        check_sum(encoder, linearization, coordinates, output)
        with torch.autocast(encoder.device.type, enabled=False):
            contributions = linearization.contributions(coordinates, chosen)
    if output.ndim == 2:  # one token, or what was made of several
        contributions, output = contributions[:, None], output[:, None]
    return Decomposition(
        contributions=contributions,
        output=output,
        units=linearization.units.table.iloc[chosen].reset_index(drop=True),
        coordinates=coordinates,
        linearization=linearization,
    )


@uncompiled
def check_sum(
    encoder: Encoder, linearization: Linearization, coordinates: Coordinates, output: Float[Tensor, "n *t d"]
) -> float:
    """The relative miss `‖Σ_u c_u − o‖ / ‖o‖` over all these samples together.

    Raises:
        ResidualError: it is above the tolerance of the model's precision; names the encoder and the miss.
    """
    with torch.no_grad(), torch.autocast(encoder.device.type, enabled=False):
        total = linearization.output(coordinates)
        output = output.to(total.dtype)
        miss = ((total - output).norm() / output.norm()).item()
        if coordinates.rounding is not None and not (lost := coordinates.rounding.max().item()) <= ROUNDING:
            raise ResidualError(
                f"{encoder.name}: the stream before the last norm misses the sum of what was added to it by "
                f"{lost:.1e} of it, more than rounding explains ({ROUNDING:.0e}). Its anatomy doesn't "
                "describe this model, or the inputs hold NaN. Load it in float32 to be sure."
            )
    dtype = _computed_in(encoder)
    tolerance = TOLERANCES[dtype]
    if not miss <= tolerance:
        raise ResidualError(
            f"{encoder.name}: the sum of units misses the model's own output by {miss:.1e} of it (allowed "
            f"{tolerance:.0e} in {str(dtype).removeprefix('torch.')}). Its anatomy doesn't describe "
            "this model, the inputs hold NaN, or matrix products run in reduced precision (TF32)."
        )
    return miss


# By encoder, and by tower, pooling and centering: of which weights, and the map.
_made: WeakKeyDictionary[Encoder, dict[tuple[str, ...], tuple[Any, Linearization]]] = WeakKeyDictionary()


def _linearization(encoder: Encoder, parts: Parts, tower: str, pooling: str) -> Linearization:
    """The map for this tower, that of the last call if its weights are still what they were: making it takes
    longer than running the encoder on a few images.
    """
    now = bit_sums(parts.mapped()), adapters_in(encoder.module)
    made, key = _made.setdefault(encoder, {}), (tower, pooling, encoder.centering)
    if key not in made or made[key][0] != now:
        made[key] = now, Linearization.of(encoder, tower, pooling)
    return made[key][1]


def _computed_in(encoder: Encoder) -> torch.dtype:
    """The precision of matrix products: the weights', or that of an autocast around the call; or of a norm
    that keeps to its own.
    """
    kind = encoder.device.type
    if encoder.dtype == torch.float64 and encoder.parts.norms_in_float32:
        return torch.float32
    if encoder.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return encoder.dtype
