"""An equal of `nn.MultiheadAttention` that calls its output projection as a module, so that hooks see it.

torch's own hands the projection's weight to a function, and the heads never show. The parameters are shared,
not copied; the stand-in is in place only while a forward pass is captured.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention


class SplitAttention(nn.Module):
    """Self-attention with the parameters of `original`, over batch-first tokens `(n, t, D)`."""

    def __init__(self, original: nn.MultiheadAttention):
        super().__init__()
        self.heads = original.num_heads
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
        **ignored: object,
    ) -> tuple[Tensor, None]:
        """The attention's output and None, as the original gives without weights."""
        joined = linear(query, self.in_proj_weight, self.in_proj_bias)  # (n, t, 3 D)
        heads = joined.unflatten(-1, (3, self.heads, -1)).movedim(1, 3)  # (n, 3, H, t, h)
        q, k, v = heads.unbind(1)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask, is_causal=is_causal and attn_mask is None)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None


def can_stand_in(original: nn.MultiheadAttention) -> bool:
    """Whether `SplitAttention` equals `original`: one width, batch first, no extra keys."""
    return bool(
        original.batch_first
        and original._qkv_same_embed_dim
        and original.bias_k is None
        and not original.add_zero_attn
    )
