"""Which tokens of a tower are kept, and how they become one: the `pooling` of `decompose`, resolved.

What pools several normed tokens into one is again of the form `Σ_j b_j v_j / s̄`. With weights `a_j` over
tokens, `v_j` a unit's vector, `μ_j` and `s_j` of the last LayerNorm at token `j`,

    Σ_j a_j (v_j − μ_j) / s_j = (v̄ − μ̄) / s̄,   1/s̄ = Σ_j a_j/s_j,   v̄ = s̄ Σ_j (a_j/s_j) v_j,   μ̄ likewise

so a pooled sample has the same coordinates as a token, and everything after works on it alike. An attention
pool does this once for each of its heads.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from residual.encoders.anatomy import Parts
from residual.encoders.pooling import EndPool, MeanPool, TokenPool
from residual.errors import ResidualError

POOLINGS = ("own", "cls", "avg", "avg:all", "all", "patches", "token:INDEX")
Reduce = Literal["none", "mean of outputs", "output of mean", "attention"]


@dataclass(frozen=True)
class Pooling:
    """What `pooling` means for one tower.

    Args:
        name: "own" for what the encoder does itself, by whichever name it was asked for; else that name.
        start, stop: the tokens kept, as in a slice.
        position: finds each sample's token, `(module, ids) -> (n,)`, where those differ; else None.
        reduce: how they become one.
        keeps_tokens: whether the result has a token axis.
        own: whether this is what the encoder does itself, so that its own output is the reference.
    """

    name: str
    start: int | None = None
    stop: int | None = None
    position: Callable[[Any, Tensor], Tensor] | None = None
    reduce: Reduce = "none"
    keeps_tokens: bool = False
    own: bool = False

    @property
    def one_token(self) -> bool:
        """Whether a single token of each sample is looked at."""
        return self.reduce == "none" and not self.keeps_tokens


def resolve(pooling: str, parts: Parts, called: str) -> Pooling:
    """What `pooling` means for a tower with these parts; `called` names it in messages.

    Raises:
        ResidualError: it isn't known, or this tower has no such tokens.
    """
    found = _resolved(pooling, parts, called)
    return replace(found, name="own") if found.own else found


def _resolved(pooling: str, parts: Parts, called: str) -> Pooling:
    if pooling == "own":
        return _own(parts)
    first = parts.prefix
    if pooling == "cls":
        if not parts.class_token:
            raise ResidualError(f"{called} has no class token; pooling 'own' is what it does.")
        return Pooling(pooling, 0, 1, own=parts.pool == TokenPool(0))
    if pooling in ("avg", "avg:all"):
        start = first if pooling == "avg" else 0
        mean = parts.pool if isinstance(parts.pool, MeanPool) else MeanPool(start, norm_first=True)
        reduce: Reduce = "mean of outputs" if mean.norm_first else "output of mean"
        own = isinstance(parts.pool, MeanPool) and (parts.pool.first, parts.pool.stop) == (start, None)
        return Pooling(pooling, start, reduce=reduce, own=own)
    if pooling in ("all", "patches"):
        return Pooling(pooling, first if pooling == "patches" else 0, keeps_tokens=True)
    if found := re.fullmatch("token:(-?[0-9]+)", pooling):
        position = int(found[1])
        return Pooling(pooling, position, position + 1 or None, own=parts.pool == TokenPool(position))
    raise ResidualError(f"Unknown pooling {pooling!r}. Known: {', '.join(POOLINGS)}.")


def _own(parts: Parts) -> Pooling:
    pool = parts.pool
    if isinstance(pool, TokenPool):
        return Pooling("own", pool.index, pool.index + 1 or None, own=True)
    if isinstance(pool, EndPool):
        return Pooling("own", position=pool.position, own=True)
    if isinstance(pool, MeanPool):
        reduce: Reduce = "mean of outputs" if pool.norm_first else "output of mean"
        return Pooling("own", pool.first, pool.stop, reduce=reduce, own=True)
    return Pooling("own", pool.first, pool.stop, reduce="attention", own=True)


def weighted(
    weights: Float[Tensor, "n P t"], std: Float[Tensor, "n t"]
) -> tuple[Float[Tensor, "n P t"], Float[Tensor, "n P"]]:
    """`b_j` (they sum to one over tokens) and `s̄` from weights `a_j` and the tokens' `s_j`."""
    over = weights / std[:, None]
    total = over.sum(-1)
    return over / total[..., None], 1 / total
