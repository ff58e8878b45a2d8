"""The sum of units against the model's own output: what every trace can be held against."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from residual.encoders.encoder import Encoder
from residual.encoders.running import uncompiled
from residual.errors import ResidualError
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization import Linearization

# How far the sum of units may be from the model's own output, by the precision of the model.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-2}

# What additions to the stream may lose in half precision: 0.16 % each in bfloat16, at random, so 3 % in all
# after some 150 blocks.
ROUNDING = 3e-2


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
    dtype = computed_in(encoder)
    tolerance = TOLERANCES[dtype]
    if not miss <= tolerance:
        raise ResidualError(
            f"{encoder.name}: the sum of units misses the model's own output by {miss:.1e} of it (allowed "
            f"{tolerance:.0e} in {str(dtype).removeprefix('torch.')}). Its anatomy doesn't describe "
            "this model, the inputs hold NaN, or matrix products run in reduced precision (TF32)."
        )
    return miss


def computed_in(encoder: Encoder) -> torch.dtype:
    """The precision of matrix products: the weights', or that of an autocast around the call; or of a norm
    that keeps to its own.
    """
    kind = encoder.device.type
    if encoder.dtype == torch.float64 and encoder.parts.norms_in_float32:
        return torch.float32
    if encoder.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return encoder.dtype
