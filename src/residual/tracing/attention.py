"""What each token gives to a head, seen while a model runs: `z = Σ_j a_j v_j`, nothing in torch patched.

A model's attention is a function of torch that it calls inside its blocks: `scaled_dot_product_attention`, or
a softmax and a product. A `TorchFunctionMode`, which holds for this thread and this context only, sees these
calls; hooks on blocks tell whose they are, and the heads' numbers that they must sum to. Only the rows of
the kept tokens are made, one layer at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from residual.encoders.anatomy import Parts
from residual.errors import ResidualError
from residual.tracing.capture import Capture, without_autocast

_PRODUCTS = ("matmul", "bmm", "__matmul__")
_NORMS = ("layer_norm", "rms_norm")
# Models mask by −∞, by the lowest number of their precision (−65504 at best), or by −10⁴.
_MASKED = -5e3


@dataclass(frozen=True)
class LayerSources:
    """The heads of one layer by the token that they attend to: of kept tokens, or of what was pooled of them.

    Args:
        z: of the heads.
        attention: `a_j`: what a head's query gives to each token; of several tokens that were pooled, the
            mean by their shares.
        weights: the same over what a norm of the heads divides by, if there is one: `w_j`.
        values: `v_j`, times the weight of that norm.
        spread: the share of each token in what depends on none: even over those that may be attended to.
        std: `s` of what was pooled, where it is known before: of the heads of an attention pool.
    """

    z: Float[Tensor, "n *t H h"]
    attention: Float[Tensor, "n *t H j"]
    weights: Float[Tensor, "n *t H j"]
    values: Float[Tensor, "n H j h"]
    spread: Float[Tensor, "n *t H j"]
    std: Float[Tensor, "n P"] | None

    def sources(self) -> Float[Tensor, "n *t H j h"]:
        """`w_j v_j`, which sum to `z` over `j`; of what a norm adds, and rounding, each has its share."""
        values = self.values[:, None] if self.weights.ndim > 3 else self.values
        own = self.weights[..., None] * values
        return own + self.spread[..., None] * (self.z - own.sum(-2))[..., None, :]


Take = Callable[[int, LayerSources], None]
Rows = Callable[[int, int], tuple[Tensor, Tensor]]  # of samples and heads: attention, and what isn't masked


class Watch(TorchFunctionMode):
    """Sees what the blocks of a tower attend to, and hands it to `take` layer by layer.

    Args:
        kept: which tokens are, of this pass.
        parts: of the tower.
        called: names the encoder in messages.
        take: gets a layer's number and its sources.
        share: `(n, P, t)`, how kept tokens are pooled; None where each stands for itself.
        std: `(n, P)` of what is pooled.
    """

    def __init__(
        self,
        kept: Capture,
        parts: Parts,
        called: str,
        take: Take,
        share: Tensor | None = None,
        std: Tensor | None = None,
    ):
        super().__init__()
        self.kept, self.parts, self.called, self.take = kept, parts, called, take
        self.share, self.std = share, std
        self.misses: list[tuple[Tensor, Tensor]] = []
        self._forget(False)

    def _forget(self, watching: bool) -> None:
        self.watching = watching
        self._held: list[Tensor] = []  # so that no other tensor gets the id of one
        self._probabilities: dict[int, Tensor] = {}  # what a softmax made, by id: its logits
        self._mixed: set[int] = set()  # what attention made
        self._rows: Rows | None = None
        self._values: Tensor | None = None
        self._norm: tuple[str, tuple[Any, ...], dict[str, Any]] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.watching and isinstance(result, Tensor):
            self._see(getattr(func, "__name__", ""), args, kwargs, result)
        return result

    def _see(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> None:
        first: Any = args[0] if args else kwargs.get("input")
        if name == "scaled_dot_product_attention":
            self._attended(lambda n, heads: self._of_queries(n, heads, *args, **kwargs), result)
            self._values = args[2] if len(args) > 2 else kwargs["value"]
        elif name == "softmax":
            self._hold(result)
            self._probabilities[id(result)] = first
        elif name in _PRODUCTS and id(first) in self._probabilities:
            logits = self._probabilities[id(first)]
            self._attended(lambda n, heads: self._of_softmax(n, heads, first, logits), result)
            self._values = args[1] if len(args) > 1 else kwargs.get("mat2", kwargs.get("other"))
        elif id(first) in self._mixed:
            if name in _NORMS:
                self._norm = name, args, kwargs
            self._follow(first, result, self._mixed.add)
        elif id(first) in self._probabilities:  # dropout, another precision
            logits = self._probabilities[id(first)]
            self._follow(first, result, lambda key: self._probabilities.__setitem__(key, logits))

    def _attended(self, rows: Rows, result: Tensor) -> None:
        self._rows, self._norm = rows, None
        self._hold(result)
        self._mixed.add(id(result))

    def _follow(self, before: Tensor, after: Tensor, add: Callable[[int], None]) -> None:
        if after.numel() == before.numel():
            self._hold(after)
            add(id(after))

    def _hold(self, value: Tensor) -> None:
        self._held.append(value)

    def _of_queries(
        self,
        n: int,
        heads: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> tuple[Float[Tensor, "n t H j"], Bool[Tensor, "n t H j"]]:
        """Attention of the kept tokens, and what each may attend to, of what goes into the function."""
        query, key = (by_head(each, n, heads) for each in (query, key))
        wide = torch.promote_types(query.dtype, torch.float32)
        queries = self.kept.kept_tokens(query.transpose(1, 2)).to(wide)  # (n, t, H, h)
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        logits = torch.einsum("nthw,nhjw->nthj", queries, key.to(wide)) * scale
        if is_causal:
            attn_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        if attn_mask is not None:
            mask = attn_mask[(None,) * (4 - attn_mask.ndim)]
            mask = mask.expand(n, -1, query.shape[2], -1).transpose(1, 2)  # (n, t, 1 or H, 1 or j)
            mask = self.kept.kept_tokens(mask)
            boolean = mask.dtype == torch.bool
            logits = logits.masked_fill(~mask, -torch.inf) if boolean else logits + mask.to(wide)
        return logits.softmax(-1), allowed(logits)

    def _of_softmax(self, n: int, heads: int, made: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The same, of what a softmax made of logits."""
        wide = torch.promote_types(made.dtype, torch.float32)
        made, logits = (
            self.kept.kept_tokens(by_head(each, n, heads).transpose(1, 2)).to(wide) for each in (made, logits)
        )
        return made, allowed(logits)

    def begin(self, module: nn.Module, args: Any) -> None:
        """Before a block."""
        if not self.kept.ignored:
            self._forget(True)

    def end(self, index: int, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Before the output projection of a block's attention: hand over its sources."""
        if self.kept.ignored:
            return
        self.watching = False
        if self._rows is None or self._values is None:
            kind = type(self.parts.blocks[index].block).__name__
            raise ResidualError(
                f"{self.called}: what the heads of block {index} (a {kind}) attend to can't be seen: they "
                "call neither scaled_dot_product_attention nor a softmax and a product.",
                "Load a transformers model with attn_implementation='sdpa' or 'eager'.",
            )
        with without_autocast(args[0].device):
            self.take(index, self._layer(args[0], self._rows, self._values))
        self._forget(False)

    def _layer(self, z: Float[Tensor, "n t D"], rows: Rows, values: Tensor) -> LayerSources:
        n, heads = len(z), self.parts.heads
        attention, may = rows(n, heads)  # (n, t, H, j)
        values = by_head(values, n, heads).to(attention)  # (n, H, j, h)
        z = self._pooled(self.kept.kept_tokens(z).to(attention).unflatten(-1, (heads, -1)))
        spread = may.to(attention)
        spread = self._pooled(spread / spread.sum(-1, keepdim=True))
        weights, added = attention, torch.zeros_like(z)
        if self._norm is not None:
            mean, over, gain, shift = self._frozen(attention, heads)  # (n, t, 1, 1) twice, (H, h) twice
            weights, values = attention * over, values * gain[:, None]
            added = self._pooled(shift - mean * over * gain)
        weights = self._pooled(weights)
        total = torch.einsum("n...hj,nhjw->n...hw", weights, values) + added
        self.misses.append(((total - z).detach().norm(), z.detach().norm()))
        return LayerSources(z, self._pooled(attention), weights, values, spread, self.std)

    def _frozen(self, like: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The mean and one over the deviation of a norm over all heads' numbers side by side; its weight and
        bias by head.
        """
        name, args, kwargs = self._norm or ("", (), {})
        names = ("input", "normalized_shape", "weight", *["bias"] * (name == "layer_norm"), "eps")
        given = dict(zip(names, args, strict=False)) | kwargs
        x = self.kept.kept_tokens(given["input"]).to(like)  # (n, t, D)
        if name == "layer_norm":
            variance, mean = torch.var_mean(x, dim=-1, correction=0)
        else:
            variance, mean = x.square().mean(-1), x.new_zeros(x.shape[:-1])
        eps = given.get("eps")
        if eps is None:
            eps = 1e-5 if name == "layer_norm" else torch.finfo(given["input"].dtype).eps
        over = (variance + eps).rsqrt()
        ones = like.new_ones(x.shape[-1])
        weight, bias = given.get("weight"), given.get("bias")
        gain = ones if weight is None else weight.to(like)
        shift = 0 * ones if bias is None else bias.to(like)
        by = (heads, -1)
        return mean[..., None, None], over[..., None, None], gain.unflatten(0, by), shift.unflatten(0, by)

    def _pooled(self, x: Float[Tensor, "n t *x"]) -> Tensor:
        """Of kept tokens, as the encoder pools them."""
        pooling = self.kept.pooling
        if self.share is not None:
            pooled = torch.einsum("npt,nt...->np...", self.share.to(x), x)
            return pooled if pooling.reduce == "attention" else pooled[:, 0]
        if pooling.reduce == "output of mean":
            return x.mean(1)
        return x[:, 0] if pooling.one_token else x

    def check(self, tolerance: float) -> None:
        """Hold the sources of all layers against what their heads gave.

        Raises:
            ResidualError: those of a layer miss it.
        """
        for index, (miss, norm) in enumerate(self.misses):
            if not miss <= tolerance * norm:
                kind = type(self.parts.blocks[index].block).__name__
                raise ResidualError(
                    f"{self.called}: what the heads of block {index} (a {kind}) attend to misses what they "
                    f"give by {(miss / norm).item():.1e} of it (allowed {tolerance:.0e}). Something lies "
                    "between attention and its output projection that can't be split by token, or the inputs "
                    "hold NaN."
                )


def allowed(logits: Tensor) -> Tensor:
    """Which tokens aren't masked."""
    return logits > logits.amax(-1, keepdim=True) + _MASKED


def by_head(value: Tensor, n: int, heads: int) -> Float[Tensor, "n H t w"]:
    """Queries, keys, values or weights with axes of samples and heads, where these were one or are fewer."""
    value = value if value.ndim == 4 else value.unflatten(0, (n, -1))
    return value if value.shape[1] == heads else value.repeat_interleave(heads // value.shape[1], 1)


@contextmanager
def watching(watch: Watch) -> Generator[None]:
    """In here what a tower attends to goes to `watch`."""
    with ExitStack() as stack:
        for index, block in enumerate(watch.parts.blocks):
            stack.callback(block.block.register_forward_pre_hook(watch.begin).remove)

            def end(module: nn.Module, args: tuple[Tensor, ...], index: int = index) -> None:
                watch.end(index, module, args)

            stack.callback(block.attention_output.register_forward_pre_hook(end).remove)
        stack.enter_context(watch)
        yield
