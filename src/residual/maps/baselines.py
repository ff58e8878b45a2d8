"""Maps that others draw, to hold ours against: attention as it is, attention rolled out, and Grad-CAM.

The first two ask for no text: they are of whatever an encoder looks at. All are of what it pools itself, for
whichever family, and not negative.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from residual.encoders.anatomy import Parts, is_norm
from residual.encoders.changes import EncoderLike, checked_encoder
from residual.encoders.encoder import Encoder
from residual.encoders.pixels import Pixels
from residual.encoders.running import evaluating
from residual.errors import ResidualError
from residual.maps.maps import on_grid
from residual.tracing.attention import LayerSources
from residual.tracing.capture import capture, without_autocast
from residual.tracing.sources import tokens_of
from residual.tracing.token_choice import resolve
from residual.tracing.trace import traced


def raw_attention(encoder: EncoderLike, pixels: Pixels) -> Float[Tensor, "n rows cols"]:
    """What the pooled token attends to in the last layer: the mean over heads of its row of the attention.

    Of several tokens that are pooled, the mean of their rows by their shares (see `source_scores`).

    Args:
        encoder: any; one that is adapted, or without some units, looks where the whole one does.
        pixels: from `encoder.pixels`.

    Raises:
        ResidualError: patches on no grid, or attention that can't be seen, see `source_scores`.

    Example:
        >>> import residual
        >>> encoder = residual.load_encoder("picto", device="cpu")
        >>> raw_attention(encoder, torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 8, 8])
    """
    encoder = _unchanged(encoder)
    parts = encoder.parts_of("image")
    last: list[Tensor] = []

    def take(index: int, layer: LayerSources) -> None:
        if index == len(parts.blocks) - 1:
            last.append(layer.attention.flatten(1, -2).mean(1))  # of heads, and of those of a pool

    with torch.no_grad():
        traced(encoder, pixels, "image", "own", parts, take)
    return on_grid(last[0], tokens_of(encoder, parts, "image", pixels, last[0].shape[-1]))


def attention_rollout(encoder: EncoderLike, pixels: Pixels) -> Float[Tensor, "n rows cols"]:
    """Attention followed down through all layers (Abnar and Zuidema 2020, arXiv 2005.00928).

    `R = Π_l (Ā_l + I)/2`, the last layer first, with `Ā_l` the mean over heads of the attention of all tokens
    and `I` for what goes past it in the stream. The map is the pooled token's row of `R`; of several that are
    pooled, the mean of theirs by their shares.

    Args:
        encoder, pixels: as in `raw_attention`.

    Raises:
        ResidualError: as `raw_attention`.
    """
    encoder = _unchanged(encoder)
    parts = encoder.parts_of("image")
    rolled: list[Tensor] = []

    def take(_: int, layer: LayerSources) -> None:
        attention = layer.attention.mean(2)  # (n, t, j)
        through = (attention + torch.eye(attention.shape[-1]).to(attention)) / 2
        rolled[:] = [through @ rolled[0] if rolled else through]

    with torch.no_grad():
        traced(encoder, pixels, "image", "all", parts, take)
        shares = _shares(encoder, pixels, parts, rolled[0])
        row = torch.einsum("nt,ntj->nj", shares, rolled[0])
    return on_grid(row, tokens_of(encoder, parts, "image", pixels, row.shape[-1]))


def grad_cam(
    encoder: EncoderLike, pixels: Pixels, directions: Float[Tensor, "c d"]
) -> Float[Tensor, "n c rows cols"]:
    """Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) on the tokens that the last block's attention reads.

    With `A (t, D)` the patches after that block's first norm, the deepest that still reach a class token, and
    `y = ⟨o, w⟩/‖o‖`, a logit but for its scale: `relu(Σ_k α_k A_k)`, `α_k` the mean over patches of
    `∂y/∂A_k`. This is the layer that Gandelsman et al. (2024, arXiv 2310.05916) compare with.

    Args:
        encoder: any; of one that is adapted, or without some units, `o` is its own output.
        pixels: from `encoder.pixels`.
        directions: of the output, as the weights of a classifier; one map each.

    Raises:
        ResidualError: directions of another width, patches on no grid, or a last block without a norm.
    """
    encoder = checked_encoder(encoder)
    encoder = encoder.around(encoder.module)  # uncompiled
    parts = encoder.parts_of("image")
    if directions.ndim != 2 or directions.shape[1] != encoder.output_dim or not len(directions):
        raise ResidualError(f"Directions are (c, {encoder.output_dim}), got {tuple(directions.shape)}.")
    seen: list[Tensor] = []

    def first_norm(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        if seen:
            return None
        seen.append(output.detach().requires_grad_())
        return seen[0]

    norms = [part for part in parts.blocks[-1].block.modules() if is_norm(part)]
    hooks = [norm.register_forward_hook(first_norm) for norm in norms]
    try:
        with torch.enable_grad():
            _, output = traced(encoder, pixels, "image", "own", parts)
            cosines = normalize(output, dim=1) @ directions.detach().to(output).T
            sums = cosines.sum(0).unbind()  # of each direction; pictures don't touch one another
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        kind = type(parts.blocks[-1].block).__name__
        raise ResidualError(f"{encoder.name}: no norm is called in its last block (a {kind}).")
    read = seen[0].detach()  # (n, t, D)
    tokens = tokens_of(encoder, parts, "image", pixels, read.shape[1])
    maps = []
    for each in sums:
        (slopes,) = torch.autograd.grad(each, seen, retain_graph=True)
        maps.append(torch.einsum("ntk,nk->nt", read, slopes[:, tokens.patches].mean(1)).clamp(min=0))
    return on_grid(torch.stack(maps, 1), tokens)


def _unchanged(encoder: EncoderLike) -> Encoder:
    """What an encoder runs, whatever is made of its units after that."""
    encoder = checked_encoder(encoder)
    return Encoder.around(encoder, encoder.module)


def _shares(
    encoder: Encoder, pixels: Pixels, parts: Parts, like: Float[Tensor, "n t t"]
) -> Float[Tensor, "n t"]:
    """How much of each token is in what the encoder pools."""
    pooling = resolve("own", parts, encoder.name)
    shares = like.new_zeros(like.shape[:2])
    own = shares[:, pooling.start : pooling.stop]
    if pooling.reduce not in ("mean of outputs", "attention"):
        own += 1 / own.shape[1]
        return shares
    with evaluating(encoder.module, hooked=True), capture(encoder, parts=parts, kinds=()) as kept:
        encoder.run("image", encoder.checked_pixels(pixels))
        _, stream = kept.take()
        with without_autocast(stream.device):
            own += kept.shares(stream)[0].mean(1)  # over the heads of a pool
    return shares
