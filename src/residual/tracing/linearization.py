"""The exact map from a unit's small coordinates to its contribution: the one idea of the library.

With the last norm's `μ` and `s` frozen, a unit's contribution to the output is affine in the features
`f = (v/s, 1/s, μ/s)`, where `v` is the unit's own vector: a head's `z`, an MLP's output, the embedding. What
the map needs of the model fits in a few matrices, so it can be saved and used without the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from residual.encoders.anatomy import Parts, check_centering
from residual.encoders.encoder import Encoder
from residual.encoders.wrappers import adapters_in, affine
from residual.errors import OtherPoolingError, ResidualError
from residual.files import written_beside
from residual.hashing import bit_sums
from residual.outputs import check_file
from residual.products import LINEARIZATION
from residual.tensor_files import load_tensors, pack_tensors, unpack_tensors
from residual.tracing.coordinates import Coordinates
from residual.tracing.linearization_state import CHANGED, check_state, constants_state, narrowest
from residual.tracing.token_choice import resolve
from residual.tracing.units import Units, UnitsLike

_NOTE = ("split", "left_out", "maps")


class Linearization:
    """Features to contributions, for every unit of one encoder.

    A unit's stream vector is `x_u = v A_u + b_u`: for a head `A` is its slice of the output projection and
    `b` the projection's bias over the number of heads, both times the layer scale; for an MLP and for the
    embedding `A = 1`. Its contribution, with `w_u` its share of the common terms, is

        c_u = (x_u ⊙ γ/s − w_u (μ γ/s − β)) P + w_u p = f_u M_u + o_u
        Σ_u c_u = ((x − μ)/s ⊙ γ + β) P + p

    with `w_u = 1/(2L+1)` for the embedding and each MLP and `1/((2L+1)H)` for each head
    (`centering="shared"`, Basile et al. 2025, arXiv 2411.00246). With `centering="own"` a unit loses its own
    mean instead, `x_u − mean(x_u)`, and `w_u` shares out only `β` and `p`. Both sum exactly to the output.
    An RMS norm subtracts no mean: there `μ` and `β` are 0, and `centering="none"`.

    Where an attention pool with `P` heads makes the output, there is one `P` for each head, and a unit's
    features are those of every head side by side. The pool's own MLP, if it has one, is one more unit; it
    lies behind the norm, so it has no share of the common terms and its features are its output.

    Args:
        state: tensors `attention_weight (L, H, h, D)`, `attention_bias (L, D)`,
            `norm_weight (D,)`, `norm_bias (D,)`, `projection_weight (P, D, d)` with `P = 1` without an
            attention pool, `projection_bias (d,)`, and with the MLP of a pool `pool_mlp_weight (D, d)`; the
            attention's layer scales are multiplied into the first two. Units that are left out contribute
            constants: `left_out (m,)`, their positions, and `left_out_constants (m, d)`. Where the others
            have maps that aren't the model's, these one below the other are `maps (f, d)`, `offsets (k, d)`.
        centering: "shared", "own" or "none".

    Raises:
        ResidualError: `centering` isn't known; or the tensors aren't those of one encoder, or not finite.

    Example:
        >>> import residual
        >>> encoder = residual.load_encoder("picto", device="cpu")
        >>> coordinates, output = residual.trace(encoder, torch.zeros(2, 3, 64, 64))
        >>> linearization = Linearization.of(encoder)
        >>> linearization.contributions(coordinates, units=[0, 9]).shape
        torch.Size([2, 2, 192])
        >>> torch.allclose(linearization.output(coordinates), output, atol=1e-4)
        True
    """

    def __init__(self, state: dict[str, Tensor], centering: str = "shared"):
        check_centering(centering)
        with torch.inference_mode(False):  # what is kept must serve calls with gradients, too
            self.state = {name: value.detach().double().contiguous() for name, value in state.items()}
        self.centering = centering
        check_state(self.state)
        layers, heads, self.head_width, self.width = self.state["attention_weight"].shape
        self.pool_heads, _, self.output_dim = self.state["projection_weight"].shape
        self.units = Units(layers, heads, pool_mlp="pool_mlp_weight" in self.state)
        left_out = self.state.get("left_out", torch.zeros(0)).long().tolist()
        self.constants = dict(zip(left_out, self.state.get("left_out_constants", ()), strict=True))
        self.units.checked(left_out)
        self._rewritten = self._other_maps()
        self.attends = self.units.pool_mlp or self.pool_heads > 1  # coordinates have an axis of pool heads

    @classmethod
    def of(
        cls, encoder: Encoder, tower: str = "image", pooling: str = "own", changed: bool = True
    ) -> Linearization:
        """Read the map off the weights of an encoder's tower; `pooling` as in `decompose`.

        With `changed=False` the encoder's changes are left aside: what the model itself gives.

        Raises:
            OtherPoolingError: a change is of those tokens alone that the encoder pools itself.
        """
        parts = encoder.parts_of(tower)
        width = parts.width
        ones, zeros = torch.ones(width), torch.zeros(width)
        weights, biases = [], []
        for block in parts.blocks:
            weight, bias = affine(block.attention_output)
            scale = _double(ones if block.attention_scale is None else block.attention_scale)
            weights.append(_double(weight) * scale)  # (H h, D)
            biases.append(_double(zeros if bias is None else bias) * scale)
        norm, projection = parts.final_norm, parts.projection
        state = {
            "attention_weight": torch.stack(weights).unflatten(1, (parts.heads, -1)),
            "attention_bias": torch.stack(biases),
            "norm_weight": ones if norm.weight is None else norm.weight,
            "norm_bias": zeros if getattr(norm, "bias", None) is None else norm.bias,
        }
        own = resolve(pooling, parts, encoder.name)
        pool = parts.pooling_attention if own.reduce == "attention" else None
        normed = torch.eye(width if pool is None else pool.output_dim)
        matrix, bias = (normed, None) if projection is None else projection.affine()
        matrix, bias = _double(matrix), _double(torch.zeros(matrix.shape[1]) if bias is None else bias)
        if pool is not None:
            values, constant = (_double(value) for value in pool.maps())
            if pool.mlp is not None:
                state["pool_mlp_weight"] = matrix
            matrix, bias = values @ matrix, constant @ matrix + bias
        state |= {"projection_weight": matrix.view(-1, *matrix.shape[-2:]), "projection_bias": bias}
        doubles = {name: _double(value) for name, value in state.items()}
        made = cls(doubles, parts.centering(encoder.centering))
        for change in encoder.changes if changed and tower == "image" else ():
            if change.of_pooled and not own.own:
                raise OtherPoolingError(
                    f"{encoder.name} is changed by what was found of the tokens that it pools, so pooling is "
                    f"'own', got {pooling!r}."
                )
            made = change.applied(made, Units.of(parts))
        return made

    def without(self, units: Sequence[int], constants: Float[Tensor, "m d"]) -> Linearization:
        """The same, but that these units contribute constants."""
        held = self.constants | dict(zip(units, constants, strict=True))
        if self._rewritten:
            offsets = [held[unit] if unit in held else self.offset(unit) for unit in range(len(self.units))]
            kept = {unit: self.matrix(unit) for unit in self._rewritten if unit not in held}
            return self.rewritten(kept, torch.stack(offsets))
        return self._with(constants_state(held, self.state["projection_bias"]))

    def rewritten(
        self, matrices: Mapping[int, Float[Tensor, "_ d"]], offsets: Float[Tensor, "u d"]
    ) -> Linearization:
        """The same units with maps of other contributions.

        Those without a matrix, which is from a unit's features, contribute constants, their offsets.
        """
        left_out = {unit: offset for unit, offset in enumerate(offsets) if unit not in matrices}
        state = constants_state(left_out, offsets[0])
        if kept := sorted(matrices):
            state |= {"maps": torch.cat([matrices[unit] for unit in kept]), "offsets": offsets[kept]}
        return self._with(state)

    def mapped(self, matrix: Float[Tensor, "d d"], offset: Float[Tensor, " d"]) -> Linearization:
        """The same with `c_u W + w_u b` in the place of `c_u`: their sum is `o W + b`."""
        after = ("projection_weight", "projection_bias", "pool_mlp_weight", "maps", "offsets")
        state = {name: self.state[name] @ matrix for name in after if name in self.state}
        state["projection_bias"] = state["projection_bias"] + offset
        shares = torch.tensor([self.units.share(unit) for unit in range(len(self.units))]).double()
        if self._rewritten:
            state["offsets"] = state["offsets"] + shares[list(self._rewritten), None] * offset
        held = {unit: value @ matrix + shares[unit] * offset for unit, value in self.constants.items()}
        return self._with(state | constants_state(held, offset), keep=("maps", "offsets"))

    def _with(self, state: dict[str, Tensor], keep: Sequence[str] = ()) -> Linearization:
        """With other tensors, and without changes that aren't among them."""
        own = {name: value for name, value in self.state.items() if name in keep or name not in CHANGED}
        return Linearization(own | state, self.centering)

    def _other_maps(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Matrix and offset of each unit whose map isn't the model's.

        Raises:
            ResidualError: they aren't of these units.
        """
        if "maps" not in self.state:
            return {}
        kept = [unit for unit in range(len(self.units)) if unit not in self.constants]
        rows = [self._count(unit) for unit in kept]
        if (sum(rows), len(kept)) != (len(self.state["maps"]), len(self.state["offsets"])):
            raise ResidualError("The tensors of a linearization aren't those of one encoder.")
        each = zip(self.state["maps"].split(rows), self.state["offsets"], strict=True)
        return dict(zip(kept, each, strict=True))

    def to(self, device: str | torch.device) -> Linearization:
        """The same with matrices and offsets made on another device, in float64 as everywhere."""
        return Linearization({name: value.to(device) for name, value in self.state.items()}, self.centering)

    def features(self, coordinates: Coordinates, unit: int) -> Float[Tensor, "n *t f"]:
        """`f_u = (v/s, 1/s, μ/s)`: `h + 2` numbers for a head, `D + 2` for an MLP or the embedding.

        With an attention pool, `P` times as many, those of each of its heads side by side. They are made in
        the precision and on the device of `coordinates.mean`.
        """
        own = coordinates.of(unit, self.units).to(coordinates.mean)
        if self.units.field(unit) == "pool_mlp":
            return own
        mean, std = coordinates.mean[..., None], coordinates.std[..., None]
        features = torch.cat([own, torch.ones_like(mean), mean], dim=-1) / std
        return features.flatten(1) if self.attends else features

    def matrix(self, unit: int) -> Float[Tensor, "f d"]:
        """`M_u` in float64; its rows go with `features`. Zeros for a unit that is left out."""
        if unit in self._rewritten:
            return self._rewritten[unit][0]
        if unit in self.constants:
            return self.state["projection_bias"].new_zeros(self._count(unit), self.output_dim)
        return self._matrix(unit)

    def _count(self, unit: int) -> int:
        """How many features a unit has."""
        field = self.units.field(unit)
        if field == "pool_mlp":
            return len(self.state["pool_mlp_weight"])
        return self.pool_heads * ((self.head_width if field == "z" else self.width) + 2)

    def _matrix(self, unit: int) -> Float[Tensor, "f d"]:
        field = self.units.field(unit)
        if field == "pool_mlp":
            return self.state["pool_mlp_weight"]
        if field == "z":
            layer, head = self.units.layer_head(unit)
            own = self.state["attention_weight"][layer, head] @ self._from_stream  # (P, h, d)
            bias = self.state["attention_bias"][layer] / self.units.heads @ self._from_stream
        else:
            own, bias = self._from_stream, torch.zeros_like(self._from_stream[:, 0])  # (P, D, d), (P, d)
        common = torch.zeros_like(bias)
        if self.centering == "shared":
            common = self.units.share(unit) * self._to_output.sum(1)
        return torch.cat([own, bias[:, None], -common[:, None]], dim=1).flatten(0, 1)

    def root(self, unit: int) -> Float[Tensor, "f r"]:
        """`R_u` with `R_u R_uᵀ = M_u M_uᵀ`, in float64, as narrow as it can be.

        Distances and variances of the rows of `f_u R_u` are those of contributions, and a head needs `h + 2`
        numbers for them in place of `d`.
        """
        matrix = self.matrix(unit)
        if matrix.shape[0] >= matrix.shape[1]:
            return matrix
        left, singular, _ = torch.linalg.svd(matrix, full_matrices=False)
        return left * singular

    def offset(self, unit: int) -> Float[Tensor, " d"]:
        """`o_u`, the constant part of the contribution, in float64."""
        if unit in self.constants:
            return self.constants[unit]
        if unit in self._rewritten:
            return self._rewritten[unit][1]
        through = self.state["projection_weight"].sum(0)
        return self.units.share(unit) * (self.state["norm_bias"] @ through + self.state["projection_bias"])

    def contributions(
        self, coordinates: Coordinates, units: UnitsLike | None = None
    ) -> Float[Tensor, "n *t u d"]:
        """Every unit's contribution, or those of some units (see `Units.checked`), in the order wanted."""
        chosen = range(len(self.units)) if units is None else self.units.checked(units)
        like = coordinates.mean
        axes = like.shape[:1] if self.attends else like.shape
        result = like.new_empty(*axes, len(chosen), self.output_dim)
        for index, unit in enumerate(chosen):
            matrix, offset = self.map_of(unit, like.dtype, like.device)
            features = self.features(coordinates, unit)
            mapped = torch.addmm(offset, features.flatten(0, -2), matrix)
            result[..., index, :] = mapped.view(*axes, self.output_dim)
        return result

    def output(self, coordinates: Coordinates) -> Float[Tensor, "n *t d"]:
        """The sum of all contributions, without making them."""
        if self.constants or self._rewritten:
            return self._output_of_kept(coordinates)
        like = coordinates.mean
        state = {name: value.to(like) for name, value in self.state.items()}
        emb, mlp, z = (coordinates.field(name).to(like) for name in ("emb", "mlp", "z"))
        stream = emb + mlp.sum(-2) + z.flatten(-3) @ state["attention_weight"].flatten(0, 2)
        stream = stream + state["attention_bias"].sum(0)  # (n, …, D)
        mean = stream.mean(-1, keepdim=True) if self.centering == "own" else like[..., None]
        normed = (stream - mean) / coordinates.std[..., None] * state["norm_weight"] + state["norm_bias"]
        if self.attends:
            output = torch.einsum("npx,pxd->nd", normed, state["projection_weight"])
        else:
            output = normed @ state["projection_weight"][0]
        if self.units.pool_mlp:
            output = output + coordinates.field("pool_mlp").to(like) @ state["pool_mlp_weight"]
        return output + state["projection_bias"]

    def _output_of_kept(self, coordinates: Coordinates) -> Float[Tensor, "n *t d"]:
        """Features of the kept units side by side, times one matrix: for as little as the whole costs."""
        like = coordinates.mean
        axes = like.shape[:1] if self.attends else like.shape
        key = -1, like.dtype, like.device
        if key not in self._maps:
            matrix, offset = self._kept
            self._maps[key] = matrix.to(like), offset.to(like)
        matrix, offset = self._maps[key]
        kept = [unit for unit in range(len(self.units)) if unit not in self.constants]
        features = [self.features(coordinates, unit) for unit in kept]
        joined = torch.cat([*features, like.new_zeros(*axes, 0)], dim=-1)
        return torch.addmm(offset, joined.flatten(0, -2), matrix).view(*axes, self.output_dim)

    @cached_property
    def _kept(self) -> tuple[Float[Tensor, "f d"], Float[Tensor, " d"]]:
        """Matrices of the kept units one below the other, and the sum of all offsets."""
        with torch.inference_mode(False):
            every = range(len(self.units))
            matrices = [self.matrix(unit) for unit in every if unit not in self.constants]
            none = torch.zeros_like(self.state["projection_weight"][0, :0])
            return torch.cat([*matrices, none]), torch.stack([self.offset(unit) for unit in every]).sum(0)

    def pack(self) -> bytes:
        """The bytes of a safetensors file, each tensor in the narrowest precision that holds it exactly."""
        state = {name: narrowest(value) for name, value in self.state.items()}
        return pack_tensors("linearization", state, self._note)

    @property
    def _note(self) -> dict[str, Any]:
        """What versions that know of no units that are left out or changed must not read over."""
        counts = {"left_out": len(self.constants), "maps": len(self._rewritten)}
        return {"split": self.centering} | {name: count for name, count in counts.items() if count}

    @classmethod
    def unpack(cls, data: bytes, where: str) -> Linearization:
        """Read what `pack` made; `where` names it in errors."""
        state, note = unpack_tensors(data, "linearization", where, fields=_NOTE)
        return cls(state, str(note.get("split")))

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write as safetensors; an earlier one is replaced on request only.

        Raises:
            ExistingError, ForeignError: one is there already, see `overwrite`; or something else is.
            ResidualError: the place can't be written to.
        """
        check_file(path, LINEARIZATION, overwrite)
        with written_beside(path) as beside:
            beside.write_bytes(self.pack())

    @classmethod
    def load(cls, path: str | Path) -> Linearization:
        """Read what `save` wrote."""
        state, note = load_tensors(path, "linearization", _NOTE)
        return cls(state, str(note.get("split")))

    @cached_property
    def _to_output(self) -> Float[Tensor, "P D d"]:
        """`diag(γ) P`."""
        with torch.inference_mode(False):
            return self.state["norm_weight"][:, None] * self.state["projection_weight"]

    @cached_property
    def _from_stream(self) -> Float[Tensor, "P D d"]:
        """The same behind the subtraction of a unit's own mean, where it loses that."""
        if self.centering != "own":
            return self._to_output
        with torch.inference_mode(False):
            return self._to_output - self._to_output.mean(1, keepdim=True)

    @cached_property
    def _maps(self) -> dict[tuple[int, torch.dtype, torch.device], tuple[Tensor, Tensor]]:
        return {}

    def map_of(self, unit: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Matrix and offset as they are used, kept for the next batch."""
        key = unit, dtype, device
        if key not in self._maps:
            with torch.inference_mode(False), torch.no_grad():
                matrix, offset = self.matrix(unit), self.offset(unit)
                self._maps[key] = (matrix.to(device, dtype), offset.to(device, dtype))
        return self._maps[key]


# By encoder, and by tower, pooling and centering: of which weights, and the map.
_made: WeakKeyDictionary[Encoder, dict[tuple[str, ...], tuple[Any, Linearization]]] = WeakKeyDictionary()


def linearization_of(encoder: Encoder, parts: Parts, tower: str, pooling: str) -> Linearization:
    """The map for this tower, that of the last call if its weights are still what they were: making it takes
    longer than running the encoder on a few images.
    """
    now = bit_sums(parts.mapped()), adapters_in(encoder.module)
    made, key = _made.setdefault(encoder, {}), (tower, pooling, encoder.centering)
    if key not in made or made[key][0] != now:
        made[key] = now, Linearization.of(encoder, tower, pooling)
    return made[key][1]


def _double(value: Tensor) -> Tensor:
    return value.detach().to("cpu", torch.float64)
