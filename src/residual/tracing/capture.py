"""Capture a forward pass with hooks on submodules, gone when the context is left, however it is left.

Nothing in torch is patched and the forward pass isn't changed. Only the pooled token's slice is kept, copied,
so that a whole layer's activations can be freed as usual.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from residual.encoders.anatomy import Parts
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.tracing.coordinates import Coordinates


class Capture:
    """The slices of the latest forward pass, until `take` hands them out."""

    def __init__(self, parts: Parts):
        self._parts = parts
        self._slices: dict[tuple[str, int], Tensor] = {}

    def take(self) -> Coordinates:
        """The coordinates of the forward pass since the last call.

        Raises:
            ResidualError: there was none, or a part of the model did not run in it.
        """
        layers = range(len(self._parts.blocks))
        wanted = [("emb", 0), ("norm", 0), *(("z", i) for i in layers), *(("mlp", i) for i in layers)]
        if missing := [f"{kind} {index}" for kind, index in wanted if (kind, index) not in self._slices]:
            raise ResidualError(f"The forward pass did not go through: {', '.join(missing)}.")
        got, self._slices = self._slices, {}
        z = torch.stack([got["z", i] for i in layers], dim=1)  # (n, L, D)
        stream = got["norm", 0]
        stream = stream.to(torch.promote_types(stream.dtype, torch.float32))
        variance, mean = torch.var_mean(stream, dim=-1, correction=0)  # (n,)
        return Coordinates(
            z=z.unflatten(-1, (self._parts.heads, -1)),  # (n, L, H, h)
            mlp=torch.stack([got["mlp", i] for i in layers], dim=1),
            emb=got["emb", 0],
            mean=mean,
            std=(variance + self._parts.final_norm.eps).sqrt(),
        )

    def _keep(self, kind: str, index: int, value: Tensor) -> None:
        if value.ndim == 3:
            value = value[:, self._parts.token]
        self._slices[kind, index] = value.clone()


@contextmanager
def capture(encoder: Encoder) -> Generator[Capture]:
    """Within this context, every image that goes through `encoder` leaves its coordinates to be taken."""
    parts = encoder.parts
    kept = Capture(parts)

    def output_of(kind: str, index: int):
        return lambda module, args, output: kept._keep(kind, index, output)

    def input_of(kind: str, index: int):
        return lambda module, args: kept._keep(kind, index, args[0])

    with ExitStack() as stack:

        def hook(place, function) -> None:
            stack.callback(place(function).remove)

        hook(parts.embedding.register_forward_hook, output_of("emb", 0))
        hook(parts.final_norm.register_forward_pre_hook, input_of("norm", 0))
        for index, block in enumerate(parts.blocks):
            hook(block.attention_output.register_forward_pre_hook, input_of("z", index))
            hook(block.mlp.register_forward_hook, output_of("mlp", index))
        yield kept


def trace(
    encoder: Encoder, pixels: Float[Tensor, "n 3 height width"]
) -> tuple[Coordinates, Float[Tensor, "n d"]]:
    """Run `pixels` through the encoder: their coordinates, and the model's own output."""
    with capture(encoder) as kept:
        output = encoder.encode_image(pixels)
        return kept.take(), output
