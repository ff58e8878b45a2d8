"""The exact map from a unit's small coordinates to its contribution: the one idea of the library.

With the last LayerNorm's `μ` and `s` frozen, a unit's contribution to the output is affine in the features
`f = (v/s, 1/s, μ/s)`, where `v` is the unit's own vector: a head's `z`, an MLP's output, the embedding. What
the map needs of the model fits in a few matrices, so it can be saved and used without the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from residual.encoders.encoder import SPLITS, Encoder
from residual.errors import ResidualError
from residual.tracing.coordinates import Coordinates
from residual.tracing.tensors import load_tensors, save_tensors
from residual.tracing.units import units_table


class Linearization:
    """Features to contributions, for every unit of one encoder.

    A unit's stream vector is `x_u = v A_u + b_u`: for a head `A` is its slice of the output projection and
    `b` the projection's bias over the number of heads, both times the layer scale; for an MLP `A` is its
    layer scale; for the embedding `A = 1`. Its contribution, with `w_u` its share of the common terms, is

        c_u = (x_u ⊙ γ/s − w_u (μ γ/s − β)) P + w_u p = f_u M_u + o_u
        Σ_u c_u = ((x − μ)/s ⊙ γ + β) P + p

    with `w_u = 1/(2L+1)` for the embedding and each MLP and `1/((2L+1)H)` for each head (`split="shared"`,
    Basile et al. 2025, arXiv 2411.00246). With `split="own"` a unit loses its own mean instead,
    `x_u − mean(x_u)`, and `w_u` shares out only `β` and `p`. Both sum exactly to the output.

    Args:
        state: tensors `attention_weight (L, H, h, D)`, `attention_bias (L, D)`, `mlp_scale (L, D)`,
            `norm_weight (D,)`, `norm_bias (D,)`, `projection_weight (D, d)`, `projection_bias (d,)`; the
            attention's layer scales are multiplied into the first two.
        split: "shared" or "own".

    Raises:
        ResidualError: `split` isn't known.
    """

    def __init__(self, state: dict[str, Tensor], split: str = "shared"):
        if split not in SPLITS:
            raise ResidualError(f"Split {split!r} isn't known. Known: {', '.join(SPLITS)}.")
        self.state = {name: _double(value).contiguous() for name, value in state.items()}
        self.split = split
        self.layers, self.heads, self.head_width, self.width = self.state["attention_weight"].shape
        self.output_dim: int = self.state["projection_weight"].shape[1]
        self.units: pd.DataFrame = units_table(self.layers, self.heads)

    @classmethod
    def of(cls, encoder: Encoder) -> Linearization:
        """Read the map off an encoder's weights."""
        parts, width = encoder.parts, encoder.parts.width
        ones, zeros = torch.ones(width), torch.zeros(width)
        weights, biases, mlp_scales = [], [], []
        for block in parts.blocks:
            output = block.attention_output
            scale = _double(ones if block.attention_scale is None else block.attention_scale)
            weights.append((_double(output.weight) * scale[:, None]).T)  # (H h, D)
            biases.append(_double(zeros if output.bias is None else output.bias) * scale)
            mlp_scales.append(_double(ones if block.mlp_scale is None else block.mlp_scale))
        norm, projection = parts.final_norm, parts.projection
        no_bias = torch.zeros(encoder.output_dim)
        state = {
            "attention_weight": torch.stack(weights).unflatten(1, (parts.heads, -1)),
            "attention_bias": torch.stack(biases),
            "mlp_scale": torch.stack(mlp_scales),
            "norm_weight": ones if norm.weight is None else norm.weight,
            "norm_bias": zeros if norm.bias is None else norm.bias,
            "projection_weight": torch.eye(width) if projection is None else projection.weight.T,
            "projection_bias": no_bias if projection is None or projection.bias is None else projection.bias,
        }
        return cls(state, encoder.split)

    def share(self, unit: int) -> float:
        """`w_u`, the unit's share of the common terms."""
        stream_units = 2 * self.layers + 1
        return 1 / stream_units if unit < self._first_head else 1 / (stream_units * self.heads)

    def features(self, coordinates: Coordinates, unit: int) -> Float[Tensor, "n f"]:
        """`f_u = (v/s, 1/s, μ/s)`: `h + 2` numbers for a head, `D + 2` for an MLP or the embedding."""
        if unit == 0:
            own = coordinates.emb
        elif unit < self._first_head:
            own = coordinates.mlp[:, unit - 1]
        else:
            own = coordinates.z[:, self._layer_head(unit)[0], self._layer_head(unit)[1]]
        mean, std = coordinates.mean[:, None], coordinates.std[:, None]
        return torch.cat([own.to(mean.dtype), torch.ones_like(mean), mean], dim=1) / std

    def matrix(self, unit: int) -> Float[Tensor, "f d"]:
        """`M_u` in float64; its rows go with `features`."""
        if unit == 0:
            own, bias = self._from_stream, torch.zeros_like(self._from_stream[0])
        elif unit < self._first_head:
            own = self.state["mlp_scale"][unit - 1][:, None] * self._from_stream
            bias = torch.zeros_like(own[0])
        else:
            layer, head = self._layer_head(unit)
            own = self.state["attention_weight"][layer, head] @ self._from_stream  # (h, d)
            bias = self.state["attention_bias"][layer] / self.heads @ self._from_stream
        common = (
            self.share(unit) * self._to_output.sum(0) if self.split == "shared" else torch.zeros_like(bias)
        )
        return torch.cat([own, bias[None], -common[None]])

    def offset(self, unit: int) -> Float[Tensor, " d"]:
        """`o_u`, the constant part of the contribution, in float64."""
        constant = self.state["norm_bias"] @ self.state["projection_weight"] + self.state["projection_bias"]
        return self.share(unit) * constant

    def contributions(
        self, coordinates: Coordinates, units: Sequence[int] | np.ndarray | None = None
    ) -> Float[Tensor, "n u d"]:
        """Every unit's contribution, or those of some units (their positions, in the order wanted)."""
        chosen = range(len(self.units)) if units is None else self._checked(units)
        like = coordinates.mean
        result = like.new_empty(len(coordinates), len(chosen), self.output_dim)
        for place, unit in enumerate(chosen):
            features = self.features(coordinates, unit).to(like.dtype)
            matrix, offset = self._map(unit, like.dtype, like.device)
            result[:, place] = torch.addmm(offset, features, matrix)
        return result

    def output(self, coordinates: Coordinates) -> Float[Tensor, "n d"]:
        """The sum of all contributions, without making them."""
        like = coordinates.mean
        state = {name: value.to(like) for name, value in self.state.items()}
        stream = coordinates.emb.to(like) + (coordinates.mlp.to(like) * state["mlp_scale"]).sum(1)  # (n, D)
        stream = stream + coordinates.z.to(like).flatten(1) @ state["attention_weight"].flatten(0, 2)
        stream = stream + state["attention_bias"].sum(0)
        mean = coordinates.mean[:, None] if self.split == "shared" else stream.mean(1, keepdim=True)
        normed = (stream - mean) / coordinates.std[:, None] * state["norm_weight"] + state["norm_bias"]
        return normed @ state["projection_weight"] + state["projection_bias"]

    def save(self, path: str | Path) -> None:
        """Write as safetensors."""
        save_tensors(path, "linearization", self.state, {"split": self.split})

    @classmethod
    def load(cls, path: str | Path) -> Linearization:
        """Read what `save` wrote."""
        state, note = load_tensors(path, "linearization")
        return cls(state, note["split"])

    @property
    def _first_head(self) -> int:
        return 1 + self.layers

    def _layer_head(self, unit: int) -> tuple[int, int]:
        return divmod(unit - self._first_head, self.heads)

    @cached_property
    def _to_output(self) -> Float[Tensor, "D d"]:
        """`diag(γ) P`."""
        return self.state["norm_weight"][:, None] * self.state["projection_weight"]

    @cached_property
    def _from_stream(self) -> Float[Tensor, "D d"]:
        """The same behind the subtraction of a unit's own mean, where it loses that."""
        return self._to_output if self.split == "shared" else self._to_output - self._to_output.mean(0)

    @cached_property
    def _maps(self) -> dict[tuple[int, torch.dtype, torch.device], tuple[Tensor, Tensor]]:
        return {}

    def _map(self, unit: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Matrix and offset as they are used, kept for the next batch."""
        key = unit, dtype, device
        if key not in self._maps:
            self._maps[key] = (self.matrix(unit).to(device, dtype), self.offset(unit).to(device, dtype))
        return self._maps[key]

    def _checked(self, units: Sequence[int] | np.ndarray) -> list[int]:
        units = [int(unit) for unit in units]
        if wrong := [unit for unit in units if not 0 <= unit < len(self.units)]:
            raise ResidualError(f"Units are 0 to {len(self.units) - 1}, got {wrong}.")
        return units


def _double(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float64)
