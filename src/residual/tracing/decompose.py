"""Split what an encoder outputs for some images into the contributions of its units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.tracing.capture import trace
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization
from residual.tracing.units import KINDS, units_of

POOLINGS = ("own", "cls")

# How far the sum of units may be from the model's own output, by the precision of the model.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}


@dataclass(frozen=True)
class Decomposition:
    """Contributions `(n, t, u, d)` of the units that were asked for, and the model's own output `(n, t, d)`.

    `units` has one row for each contribution, in order; its column `unit` is the position among all units.
    """

    contributions: Float[Tensor, "n t u d"]
    output: Float[Tensor, "n t d"]
    units: pd.DataFrame


def decompose(
    encoder: Encoder,
    pixels: Float[Tensor, "n 3 height width"],
    pooling: str = "own",
    kinds: Sequence[str] = KINDS,
) -> Decomposition:
    """Split the encoder's output into units: `Σ_u c_u` is the output, exactly (see `Linearization`).

    Args:
        encoder: from `load_encoder` or `wrap_encoder`.
        pixels: from `encoder.preprocess`, stacked.
        pooling: which token's output; "own", what the encoder does itself, or "cls".
        kinds: which kinds of unit to give: "emb", "mlp", "head".

    Raises:
        ResidualError: an unknown pooling or kind; or the sum of all units misses the model's own output.
    """
    if pooling not in POOLINGS:
        raise ResidualError(f"Unknown pooling {pooling!r}. Known: {', '.join(POOLINGS)}.")
    if pooling == "cls" and encoder.parts.token != 0:
        raise ResidualError(f"{encoder.name} doesn't pool its class token; pooling 'own' is what it does.")
    linearization = Linearization.of(encoder)
    chosen = units_of(linearization.units, kinds)
    with torch.no_grad():
        coordinates, output = trace(encoder, pixels)
        check_sum(encoder, linearization, coordinates, output)
        contributions = linearization.contributions(coordinates, chosen)
    return Decomposition(
        contributions=contributions[:, None],
        output=output[:, None],
        units=linearization.units.iloc[chosen].reset_index(drop=True),
    )


def check_sum(
    encoder: Encoder, linearization: Linearization, coordinates: Coordinates, output: Float[Tensor, "n d"]
) -> float:
    """The relative miss `‖Σ_u c_u − o‖ / ‖o‖` over all these samples together.

    Raises:
        ResidualError: it is above the tolerance of the model's precision; names the encoder and the miss.
    """
    total = linearization.contributions(coordinates).sum(dim=1)
    output = output.to(total.dtype)
    miss = ((total - output).norm() / output.norm()).item()
    tolerance = TOLERANCES[encoder.dtype]
    if not miss <= tolerance:
        raise ResidualError(
            f"{encoder.name}: the sum of units misses the model's own output by {miss:.1e} of it (allowed "
            f"{tolerance:.0e} in {str(encoder.dtype).removeprefix('torch.')}). Its anatomy doesn't describe "
            "this model, the images hold NaN, or matrix products run in reduced precision (TF32)."
        )
    return miss
