"""Modules that stand in for a model's own while a forward pass is captured: equal, with the same parameters.

`nn.MultiheadAttention` hands the weight of its output projection to a function, so that the heads never show;
`SplitAttention` calls it as a module, where hooks see it. A convolution that cuts an image into patches is a
matrix product, and much faster as one; but it rounds otherwise, so only compiled traces, which round
otherwise anyhow, take `PatchProduct`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from residual.errors import ResidualError


class SplitAttention(nn.Module):
    """Self-attention with the parameters of `original`, over batch-first tokens `(n, t, D)`.

    `only` picks the tokens whose output is wanted; the others are attended to, but don't attend.
    """

    def __init__(self, original: nn.MultiheadAttention, only: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.only = only
        self.num_heads = original.num_heads
        self.in_proj_weight = original.in_proj_weight
        self.in_proj_bias = original.in_proj_bias
        self.out_proj = original.out_proj
        self.train(original.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        average_attn_weights: bool = True,
    ) -> tuple[Tensor, None]:
        """The attention's output and None, as the original gives without weights."""
        if need_weights or key_padding_mask is not None:
            raise ResidualError("Attention that gives its weights or masks padding can't be captured.")
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = ~attn_mask  # there True means that a token isn't attended to, here that it is
        if self.only is None or attn_mask is not None or is_causal:
            q, k, v = self._heads(query, slice(None)).unbind(1)  # each (n, H, t, h)
        else:
            width = query.shape[-1]
            (q,) = self._heads(self.only(query), slice(width)).unbind(1)
            k, v = self._heads(query, slice(width, None)).unbind(1)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask, is_causal=is_causal and attn_mask is None)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None

    def _heads(self, tokens: Tensor, rows: slice) -> Tensor:
        """Queries, keys and values, or those that `rows` of their joint weight make: `(n, 1…3, H, t, h)`."""
        bias = None if self.in_proj_bias is None else self.in_proj_bias[rows]
        joined = linear(tokens, self.in_proj_weight[rows], bias)
        head_width = tokens.shape[-1] // self.num_heads
        return joined.unflatten(-1, (-1, self.num_heads, head_width)).movedim(1, 3)


def can_split(original: nn.MultiheadAttention) -> bool:
    """Whether `SplitAttention` equals `original`: one width, batch first, no extra keys."""
    return bool(
        original.batch_first
        and original._qkv_same_embed_dim
        and original.bias_k is None
        and not original.add_zero_attn
    )


class PatchProduct(nn.Module):
    """The patches of an image times the weights of `original`, a convolution that `cuts_patches`."""

    def __init__(self, original: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = original.weight, original.bias
        self.train(original.training)

    def forward(self, image: Tensor) -> Tensor:
        """`(n, channels, height, width)` to `(n, D, rows, columns)`, as the original gives."""
        height, width = self.weight.shape[2:]
        rows, columns = image.shape[2] // height, image.shape[3] // width
        whole = image[:, :, : rows * height, : columns * width]
        cut = whole.unflatten(3, (columns, width)).unflatten(2, (rows, height))  # (n, c, rows, h, columns, w)
        patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (n, rows, columns, c h w)
        return linear(patches, self.weight.flatten(1), self.bias).movedim(3, 1)


def cuts_patches(module: nn.Module) -> bool:
    """Whether a module is a convolution whose windows lie side by side."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == module.stride
        and type(module).forward is nn.Conv2d.forward
        and module.groups == 1
        and set(module.dilation) == {1}
        and module.padding in ("valid", (0, 0))
        and module.weight.shape[2] > 1
    )


def replace_module(module: nn.Module, name: str, stand_in: nn.Module, stack: ExitStack) -> None:
    """Put a module in the place of another, until `stack` is closed."""
    holder_name, _, attribute = name.rpartition(".")
    holder = module.get_submodule(holder_name)
    original = getattr(holder, attribute)
    for hooks in (name for name in vars(original) if name.startswith("_forward_")):
        setattr(stand_in, hooks, getattr(original, hooks))  # the user's hooks, also those that come or go
    stack.callback(setattr, holder, attribute, original)
    setattr(holder, attribute, stand_in)
