"""How an encoder makes one output of many tokens, by itself ("own" pooling): a family declares one of these.

A class token and an average are the same for every sample; the end of a text differs from text to text; an
attention pool weighs every token by what is in it. In each case what is pooled is a fixed weighted sum once
the weights are frozen, so it stays a sum over units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from residual.encoders.paths import Path
from residual.encoders.wrappers import affine, inside


@dataclass(frozen=True)
class TokenPool:
    """One token, by its position: a class token is 0, the last of a padded text is -1."""

    index: int = 0


CLASS_TOKEN = TokenPool(0)


@dataclass(frozen=True)
class EndPool:
    """The end-of-text token: `position(module, ids (n, t)) -> (n,)` finds it."""

    position: Callable[[Any, Int[Tensor, "n t"]], Int[Tensor, " n"]]


@dataclass(frozen=True)
class MeanPool:
    """The average of the tokens from `first` on, up to `stop` if it is given; each is normed before
    (`norm_first`), or it after.
    """

    first: int
    norm_first: bool
    stop: int | None = None


@dataclass(frozen=True)
class AttentionPool:
    """A learnt query attends to the normed tokens from `first` on, perhaps with a residual MLP behind it.

    Args:
        pool: path of the pooling module (or several, tried in turn); empty for the model itself.
        kind: wraps that module; tells the attention weights and the maps of the values.
        first: the first token attended to.
        stop: the first that isn't any more, or None for all the rest.
    """

    pool: Path
    kind: type[PoolingAttention]
    first: int = 0
    stop: int | None = None


Pool = TokenPool | EndPool | MeanPool | AttentionPool


class PoolingAttention(ABC):
    """What tracing must know of the module of an attention pool with `P` heads.

    `needs` are the attributes that such a module has. Without an MLP it has two heads or more.
    """

    needs: tuple[str, ...] = ()

    def __init__(self, module: Any):
        self.module = module
        self.mlp: nn.Module | None = getattr(module, "mlp", None)

    @classmethod
    def missing(cls, module: Any) -> list[str]:
        """What of it isn't there or can't be split, named; empty if nothing."""
        return [name for name in cls.needs if getattr(module, name, None) is None]

    @property
    @abstractmethod
    def output_dim(self) -> int:
        """Width of what it gives."""

    def parameters(self) -> list[Tensor]:
        """Its weights."""
        return list(self.module.parameters())

    @abstractmethod
    def weights(self, tokens: Float[Tensor, "n t D"]) -> Float[Tensor, "n P t"]:
        """The softmax over tokens, for each head of the pool, in float32 or better."""

    @abstractmethod
    def maps(self) -> tuple[Float[Tensor, "P D d"], Float[Tensor, " d"]]:
        """From a head's weighted sum of tokens to its part of the output, in float64; and the constant."""


class ProbePool(PoolingAttention):
    """A `probe` that goes through an `nn.MultiheadAttention`, as in transformers' SigLIP."""

    needs = ("probe", "attention", "mlp")

    @property
    def output_dim(self) -> int:
        """See `PoolingAttention`."""
        return self.module.attention.embed_dim

    def weights(self, tokens: Tensor) -> Tensor:
        """See `PoolingAttention`."""
        attention = self.module.attention
        heads, width = attention.num_heads, attention.embed_dim
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        query = nn.functional.linear(self.module.probe[0], weight[:width], bias[:width])  # (1, D)
        keys = nn.functional.linear(tokens, weight[width : 2 * width], bias[width : 2 * width])
        return softmax(query[0].unflatten(-1, (heads, -1)), keys.unflatten(-1, (heads, -1)))

    def maps(self) -> tuple[Tensor, Tensor]:
        """See `PoolingAttention`."""
        attention = self.module.attention
        width = attention.embed_dim
        return value_maps(
            attention.in_proj_weight[2 * width :],
            attention.in_proj_bias[2 * width :],
            inside(attention.out_proj),  # torch's attention calls no layer of peft around it
            attention.num_heads,
        )


class LatentPool(PoolingAttention):
    """timm's `AttentionPoolLatent` with one latent."""

    needs = ("latent", "q", "kv", "q_norm", "k_norm", "proj", "mlp")

    @classmethod
    def missing(cls, module: Any) -> list[str]:
        """Several latents, or positions of the pool's own, aren't split."""
        found = super().missing(module)
        if not found and module.latent_len != 1:
            found.append(f"latent (of {module.latent_len}, expected one)")
        if not found and module.pos_embed is not None:
            found.append("pos_embed (expected none)")
        return found

    @property
    def output_dim(self) -> int:
        """See `PoolingAttention`."""
        return self.module.proj.out_features

    def weights(self, tokens: Tensor) -> Tensor:
        """See `PoolingAttention`."""
        module = self.module
        query = module.q.forward(module.latent[0, 0]).unflatten(-1, (module.num_heads, -1))
        weight, bias = _rows(*affine(module.kv), slice(module.kv.in_features))
        keys = nn.functional.linear(tokens, weight.to(tokens), None if bias is None else bias.to(tokens))
        keys = keys.unflatten(-1, (module.num_heads, -1))
        # By `forward`, so that hooks on these modules see the model's own calls only.
        return softmax(module.q_norm.forward(query), module.k_norm.forward(keys))

    def maps(self) -> tuple[Tensor, Tensor]:
        """See `PoolingAttention`."""
        values = slice(self.module.kv.in_features, None)
        weight, bias = _rows(*affine(self.module.kv), values)
        return value_maps(weight, bias, self.module.proj, self.module.num_heads)


class TokenHeads(PoolingAttention):
    """The average of linear heads, each of which reads one of the first tokens: DeiT's, named in `needs`."""

    @property
    def heads(self) -> list[Any]:
        """In the order of their tokens."""
        return [getattr(self.module, name) for name in self.needs]

    @property
    def output_dim(self) -> int:
        """See `PoolingAttention`."""
        return inside(self.heads[0]).out_features

    def parameters(self) -> list[Tensor]:
        """See `PoolingAttention`."""
        return [value for head in self.heads for value in head.parameters()]

    def weights(self, tokens: Tensor) -> Tensor:
        """See `PoolingAttention`: each head sees its own token alone."""
        wide = torch.promote_types(tokens.dtype, torch.float32)
        alone = torch.eye(len(self.heads), tokens.shape[1], dtype=wide, device=tokens.device)
        return alone.expand(len(tokens), -1, -1)

    def maps(self) -> tuple[Tensor, Tensor]:
        """See `PoolingAttention`."""
        maps = [affine(head) for head in self.heads]
        weights = torch.stack([weight.detach().double() for weight, _ in maps])
        none = weights.new_zeros(self.output_dim)
        biases = [none if bias is None else bias.detach().double().to(none) for _, bias in maps]
        return weights / len(maps), torch.stack(biases).mean(0)


def softmax(query: Float[Tensor, "P h"], keys: Float[Tensor, "n t P h"]) -> Float[Tensor, "n P t"]:
    """Attention of one query in several heads, in float32 or better."""
    wide = torch.promote_types(keys.dtype, torch.float32)
    logits = torch.einsum("ph,ntph->npt", query.to(wide), keys.to(wide)) * query.shape[-1] ** -0.5
    return logits.softmax(-1)


def _rows(weight: Tensor, bias: Tensor | None, rows: slice) -> tuple[Tensor, Tensor | None]:
    """Of what `affine` tells, some of the outputs, as a linear layer has them."""
    return weight.T[rows], None if bias is None else bias[rows]


def value_maps(weight: Tensor, bias: Tensor | None, output: nn.Module, heads: int) -> tuple[Tensor, Tensor]:
    """Value and output projections of each head multiplied into one: `V_p O_p`, and `b_V O + b_O`.

    Either may be a layer with adapters of peft around it, which `affine` tells of.
    """
    out, constant = affine(output)
    out = out.detach().double()  # (D, d)
    values = weight.detach().to(out).T.unflatten(1, (heads, -1))  # (D, P, h)
    shift = out.new_zeros(out.shape[1]) if constant is None else constant.detach().to(out)
    if bias is not None:
        shift = shift + bias.detach().to(out) @ out
    return torch.einsum("xph,phd->pxd", values, out.unflatten(0, (heads, -1))), shift
