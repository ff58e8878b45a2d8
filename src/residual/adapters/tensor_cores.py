"""`(S ⊙ λ) Φ + rest` for several λ at once on a GPU's tensor cores, to the rounding of float32.

TF32 keeps 10 bits of a number's fraction. A number in float32 is the sum of an upper part, which TF32 holds
exactly, and a lower one; three products of parts stand for one in float32, since that of two lower parts is
below its rounding. The weighted scores, `f n K` numbers, are never written to memory, nor is their gradient.
Sums of a few products are added up in float32 proper: tensor cores cut off what doesn't fit where they add.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

tl: Any = triton.language  # which no type checker follows
_kernel: Any = triton.jit

# Rows, columns and depth of a tile, and how a GPU of compute capability 9.0 works on it: measured on an H100.
_FORWARD: dict[str, Any] = {"BM": 128, "BN": 128, "BK": 32, "num_warps": 8, "num_stages": 3}
_BACKWARD: dict[str, Any] = {"BM": 64, "BN": 128, "BK": 32, "num_warps": 4, "num_stages": 3}
_PROGRAMS = 132  # as many as it has processors
_ALIGNED = 64  # numbers; rows that begin at such places are read faster


class WeightedSum:
    """Makes `(S ⊙ λ) Φ + rest` of `S (f, n, K)`, `λ (f, K)` and `rest (f, n, d)`; only λ gets a gradient.

    Args:
        directions: `Φ`, in float32.
    """

    def __init__(self, directions: Float[Tensor, "K d"]):
        self.components, self.dim = directions.shape
        self.stride = _tiles(self.components, _ALIGNED) * _ALIGNED
        self.by_row = _parts(directions.contiguous())
        self.by_column = _parts(pad(directions.T, (0, self.stride - self.components)).contiguous())

    def __call__(
        self, scores: Float[Tensor, "f n K"], lambdas: Float[Tensor, "f K"], rest: Float[Tensor, "f n d"]
    ) -> Float[Tensor, "f n d"]:
        """The sums, of each fit and sample."""
        return _WeightedSum.apply(scores, lambdas, rest, self)


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, lambdas: Tensor, rest: Tensor, of: WeightedSum) -> Tensor:
        ctx.save_for_backward(scores)
        ctx.of = of
        (fits, n, components), dim = scores.shape, of.dim
        rows, columns = _tiles(fits * n, _FORWARD["BM"]), _tiles(dim, _FORWARD["BN"])
        spans = max(1, _PROGRAMS // (rows * columns))  # of components, each summed by itself
        span = _tiles(_tiles(components, spans), _FORWARD["BK"]) * _FORWARD["BK"]
        sums = scores.new_empty(_tiles(components, span), fits * n, dim)
        _forward[(rows, columns, len(sums))](
            scores.contiguous(), lambdas.contiguous(), rest.contiguous(), *of.by_column, sums,
            fits * n, n, components, dim, of.stride, span, **_FORWARD,
        )  # fmt: skip
        return sums.sum(0).view(fits, n, dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        (scores,) = ctx.saved_tensors
        fits, n, components = scores.shape
        rows, columns = _tiles(n, _BACKWARD["BM"]), _tiles(components, _BACKWARD["BN"])
        sums = scores.new_empty(fits, rows, components)
        _backward[(fits * rows, columns)](
            scores.contiguous(), gradient.contiguous(), *ctx.of.by_row, sums,
            rows, n, components, ctx.of.dim, **_BACKWARD,
        )  # fmt: skip
        return None, sums.sum(1), None, None


def _tiles(count: int, size: int) -> int:
    return -(-count // size)


def _parts(values: Tensor) -> tuple[Tensor, Tensor]:
    upper = (values.view(torch.int32) & -8192).view(torch.float32)
    return upper, values - upper


@_kernel
def _upper(values):
    return (values.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)


@_kernel
def _product(values, upper, lower):
    """`values` times the transpose of `upper + lower`."""
    high = _upper(values)
    product = tl.dot(values - high, upper.T, input_precision="tf32")
    product = tl.dot(high, lower.T, product, input_precision="tf32")
    return tl.dot(high, upper.T, product, input_precision="tf32")


@_kernel
def _forward(
    S, L, rest, upper, lower, sums, m, n, components, dim, stride, span,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One tile of the output, summed over one span of components."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    first = tl.program_id(2) * span
    last = tl.minimum(components, first + span)
    in_rows, in_columns, fits = rows < m, columns < dim, rows // n
    output = rows[:, None].to(tl.int64) * dim + columns[None, :]
    in_output = in_rows[:, None] & in_columns[None, :]
    total = tl.load(rest + output, mask=in_output & (tl.program_id(2) == 0), other=0.0)
    for start in range(first, last, BK):
        ks = start + tl.arange(0, BK)
        inside = in_rows[:, None] & (ks < last)[None, :]
        scores = tl.load(S + rows[:, None].to(tl.int64) * components + ks[None, :], mask=inside, other=0.0)
        lambdas = tl.load(L + fits[:, None] * components + ks[None, :], mask=inside, other=0.0)
        at = columns[:, None] * stride + ks[None, :]
        known = in_columns[:, None] & (ks < last)[None, :]
        high, low = tl.load(upper + at, mask=known, other=0.0), tl.load(lower + at, mask=known, other=0.0)
        total += _product(scores * lambdas, high, low)
    tl.store(sums + tl.program_id(2).to(tl.int64) * m * dim + output, total, mask=in_output)


@_kernel
def _backward(
    S, gradient, upper, lower, sums, blocks, n, components, dim,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The gradient of some components of one fit, summed over one block of its rows."""
    fit, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    own = block * BM + tl.arange(0, BM)
    rows = (fit * n + own).to(tl.int64)[:, None]
    ks = tl.program_id(1) * BN + tl.arange(0, BN)
    in_rows, in_components = own < n, ks < components
    total = tl.zeros((BM, BN), tl.float32)
    for start in range(0, dim, BK):
        ds = start + tl.arange(0, BK)
        inside = in_rows[:, None] & (ds < dim)[None, :]
        slopes = tl.load(gradient + rows * dim + ds[None, :], mask=inside, other=0.0)
        at = ks[:, None] * dim + ds[None, :]
        known = in_components[:, None] & (ds < dim)[None, :]
        high, low = tl.load(upper + at, mask=known, other=0.0), tl.load(lower + at, mask=known, other=0.0)
        total += _product(slopes, high, low)
    inside = in_rows[:, None] & in_components[None, :]
    scores = tl.load(S + rows * components + ks[None, :], mask=inside, other=0.0)
    place = sums + (fit * blocks + block).to(tl.int64) * components + ks
    tl.store(place, tl.sum(total * scores, axis=0), mask=in_components)
