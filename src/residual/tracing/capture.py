"""Capture a forward pass with hooks on submodules, gone when the context is left, however it is left.

Nothing in torch is patched. Attentions that hide their output projection are stood in for by equal modules
with the same parameters (`residual.tracing.stand_ins`). Only the kept tokens' slices are copied, so that a
layer's activations can be freed as usual; and where the encoder pools one token, the last block's output
projection and MLP run on that token alone: nothing else of theirs is read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from threading import Lock, get_ident
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from residual.encoders.anatomy import Parts
from residual.encoders.encoder import Encoder
from residual.errors import ResidualError
from residual.tracing.coordinates import Coordinates
from residual.tracing.stand_ins import SplitAttention, can_split, replace_module
from residual.tracing.token_choice import Pooling, resolve, weighted
from residual.tracing.units import KINDS


class Capture:
    """The slices of the latest forward pass of one tower, until `take` hands them out.

    `kinds` are the kinds of unit whose coordinates are wanted; those of others are None.
    """

    def __init__(self, parts: Parts, pooling: Pooling, kinds: Sequence[str] = KINDS):
        self.pooling = pooling
        self.heads = "head" in kinds
        self.rest = not {"emb", "mlp"}.isdisjoint(kinds)  # both: rounding is shared out over them together
        self._positions: Tensor | None = None
        self.parts = parts
        self.pool_mlp = parts.pool_mlp if self.rest and pooling.reduce == "attention" else None
        self._slices: dict[str, Tensor] = {}
        self._thread: int | None = None

    def expect(self, module: nn.Module, inputs: Tensor) -> None:
        """Say what comes next, where each sample's pooled token depends on it (the end of a text)."""
        if self.pooling.position is not None:
            self._positions = self.pooling.position(module, inputs)

    def of_this_thread(self) -> Capture:
        """From now on look at forward passes of this thread only: the model may be at work in others, too."""
        self._thread = get_ident()
        return self

    @property
    def ignored(self) -> bool:
        """Whether this is a forward pass to be left alone."""
        return self._thread is not None and self._thread != get_ident()

    def take(self) -> tuple[Coordinates, Float[Tensor, "n *t D"]]:
        """The coordinates of the forward pass since the last call, and the stream before the last norm (of
        the tokens, or of their mean where that is what's normed).

        Raises:
            ResidualError: there was none, or a part of the model did not run in it; or no token is kept.
        """
        layers = range(len(self.parts.blocks))
        kinds = ["z"] * self.heads + ["mlp"] * self.rest
        wanted = ["embedding"] * self.rest + ["stream"]
        wanted += [f"{kind} {index}" for kind in kinds for index in layers]
        if self.pool_mlp is not None:
            wanted.append("pool_mlp")
        if missing := [name for name in wanted if name not in self._slices]:
            raise ResidualError(f"The forward pass did not go through: {', '.join(missing)}.")
        got, self._slices = self._slices, {}
        if not got["stream"].shape[1]:
            raise ResidualError(f"Pooling {self.pooling.name!r} keeps none of this tower's tokens.")
        with without_autocast(got["stream"].device):
            pick, mean, std, stream = self._pooled(got["stream"])
            # One by one, so that no more than one layer is held twice where all tokens were kept.
            taken = {kind: [pick(got.pop(f"{kind} {index}")) for index in layers] for kind in kinds}
            z = emb = added = lost = None
            if self.heads:
                z = torch.stack(taken["z"], dim=-2).unflatten(-1, (self.parts.heads, -1))  # (n, …, L, H, h)
            if self.rest:
                emb, added = pick(got["embedding"]), self._added(taken["mlp"], "mlp_scale")
                if "attention 0" in got:
                    attention = [pick(got.pop(f"attention {index}")) for index in layers]
                    attended = self._added(attention, "attention_scale")
                    emb, added, lost = _shared_out(emb, added, attended, pick(got["stream"]))
            coordinates = Coordinates(
                z=z,
                mlp=added,
                emb=emb,
                mean=mean,
                std=std,
                pool_mlp=got["pool_mlp"].flatten(1) if "pool_mlp" in got else None,
                rounding=lost,
            )
        return coordinates, stream

    def keep(self, name: str, value: Tensor) -> None:
        """Copy the kept tokens of `value (n, t, …)`."""
        if self.ignored:
            return
        self._slices[name] = self.kept_tokens(value).clone()

    def keep_whole(self, name: str, value: Tensor) -> None:
        """Copy all of it."""
        if not self.ignored:
            self._slices[name] = value.clone()

    def cut(self, value: Tensor) -> Tensor:
        """`value`, cut to the kept tokens for good."""
        return value if self.ignored else self.kept_tokens(value)

    @property
    def trims(self) -> bool:
        """Whether nothing but the pooled token of the last block is read."""
        return self.pooling.own and self.pooling.one_token

    @property
    def rounds(self) -> bool:
        """Whether the stream is in half precision: what heads add to it is then wanted as it was added."""
        embedding = self._slices.get("embedding")
        return embedding is not None and torch.finfo(embedding.dtype).bits < 32

    def kept_tokens(self, value: Tensor) -> Tensor:
        """The kept tokens of `value`, or all of it where it was cut to the pooled token before."""
        if self.trims and value.shape[1] == 1:
            return value
        if self._positions is not None:
            return value[torch.arange(len(value), device=value.device), self._positions][:, None]
        return value[:, self.pooling.start : self.pooling.stop]

    def _added(self, outputs: list[Tensor], scale: str) -> Float[Tensor, "n *t L D"]:
        """What parts of the blocks added to the stream: their outputs, times layer scales if any."""
        joined = torch.stack(outputs, dim=-2)
        scales = [getattr(block, scale) for block in self.parts.blocks]
        if all(value is None for value in scales):
            return joined
        ones = joined.new_ones(joined.shape[-1])
        wide = torch.promote_types(joined.dtype, torch.float32)
        return joined.to(wide) * torch.stack([ones if value is None else value.to(ones) for value in scales])

    def _pooled(self, stream: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor, Tensor]:
        """How kept tokens become one, `μ` and `s` of that, and the stream to norm."""
        wide = torch.promote_types(stream.dtype, torch.float32)
        reduce = self.pooling.reduce
        if reduce == "none":
            one = self.pooling.one_token
            stream = stream[:, 0] if one else stream
            return (lambda x: x[:, 0] if one else x), *self._norm(stream.to(wide)), stream
        if reduce == "output of mean":
            mean = stream.to(wide).mean(1)
            return (lambda x: x.to(wide).mean(1)), *self._norm(mean), mean.to(stream.dtype)
        means, stds = self._norm(stream.to(wide))  # (n, t)
        share, std = self._shares(stream, stds)
        if reduce == "attention":

            def pick(x: Tensor) -> Tensor:
                return torch.einsum("npt,nt...->np...", share, x.to(wide))

            return pick, pick(means), std, stream

        def average(x: Tensor) -> Tensor:
            return torch.einsum("nt,nt...->n...", share[:, 0], x.to(wide))

        return average, average(means), std[:, 0], stream

    def shares(self, stream: Float[Tensor, "n t D"]) -> tuple[Float[Tensor, "n P t"], Float[Tensor, "n P"]]:
        """How several normed tokens become one, by the stream before the last norm: their shares, and `s̄`."""
        wide = torch.promote_types(stream.dtype, torch.float32)
        return self._shares(stream, self._norm(stream.to(wide))[1])

    def _shares(self, stream: Tensor, stds: Tensor) -> tuple[Tensor, Tensor]:
        attention = self.parts.pooling_attention
        if self.pooling.reduce == "attention" and attention is not None:
            weights = attention.weights(self.parts.final_norm.forward(stream)).to(stds)  # (n, P, t)
            return weighted(weights, stds)
        return weighted(torch.full_like(stds[:, None], 1 / stds.shape[1]), stds)

    def _norm(self, stream: Tensor) -> tuple[Tensor, Tensor]:
        if self.parts.centred:
            variance, mean = torch.var_mean(stream, dim=-1, correction=0)
        else:
            variance = stream.square().mean(-1)
            mean = torch.zeros_like(variance)
        return mean, (variance + self.parts.epsilon).sqrt()


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Where autocast is on, off: coordinates and what is made of them keep their precision."""
    on = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else nullcontext()


def _shared_out(
    emb: Float[Tensor, "n *t D"],
    mlp: Float[Tensor, "n *t L D"],
    attention: Float[Tensor, "n *t L D"],
    stream: Float[Tensor, "n *t D"],
) -> tuple[Float[Tensor, "n *t D"], Float[Tensor, "n *t L D"], Float[Tensor, "n ..."]]:
    """Share out evenly, over the embedding and MLPs, what the stream lost to rounding; and how much it was.

    In half precision each addition to the stream rounds it, in bfloat16 by 0.16 % of its norm: by 1 % after
    24 blocks. Units would miss the model's output by that, though none of them is off.
    """
    stream = stream.float()
    lost = stream - emb.float() - attention.float().sum(-2) - mlp.float().sum(-2)
    share = lost / (1 + mlp.shape[-2])
    return emb + share, mlp + share[..., None, :], lost.norm(dim=-1) / stream.norm(dim=-1)


@contextmanager
def capture(
    encoder: Encoder,
    tower: str = "image",
    pooling: str = "own",
    parts: Parts | None = None,
    kinds: Sequence[str] = KINDS,
) -> Generator[Capture]:
    """Within this context, all that goes through a tower of `encoder` leaves its coordinates to be taken.

    `parts` are those of the tower, where they were looked up already; `kinds` the units that are wanted.

    Raises:
        ResidualError: the tower can't be split, has no such tokens, or is being captured already.
    """
    parts = parts or encoder.parts_of(tower)
    kept = Capture(parts, resolve(pooling, parts, encoder.name), kinds).of_this_thread()
    with ExitStack() as stack:
        stack.enter_context(exclusively(parts.blocks[0].block))
        place_hooks(kept, parts, stack)
        yield kept


class _Owner:
    """Which thread captures a tower: another one waits, the same one gets an error."""

    def __init__(self):
        self.lock = Lock()
        self.thread: int | None = None


_owners: WeakKeyDictionary[nn.Module, _Owner] = WeakKeyDictionary()
_owners_lock = Lock()


@contextmanager
def exclusively(block: nn.Module) -> Generator[None]:
    """In here no other thread captures the tower that begins with `block`.

    Raises:
        ResidualError: this thread does already.
    """
    with _owners_lock:
        owner = _owners.setdefault(block, _Owner())
    if owner.thread == get_ident():
        raise ResidualError("This tower is being captured already; leave that context first.")
    with owner.lock:
        owner.thread = get_ident()
        try:
            yield
        finally:
            owner.thread = None


def place_hooks(kept: Capture, parts: Parts, stack: ExitStack) -> None:
    """Place the hooks that feed `kept`, and the stand-ins; what takes each away again goes onto `stack`.

    They close over nothing, so that a copy of the model, made with its `kept`, feeds that one.
    """
    blocks = parts.blocks

    def hook(register: Callable[..., Any], function: Callable[..., Any], *bound: Any, **how: Any) -> None:
        stack.callback(register(partial(function, kept, *bound), **how).remove)

    last = len(blocks) - 1
    trim = kept.trims
    if kept.rest:
        hook(blocks[0].block.register_forward_pre_hook, _embedding_seen, with_kwargs=True)
    for index, block in enumerate(blocks):
        cut = trim and index == last
        if block.multihead:
            _split(block.block, block.multihead, stack, kept.cut if cut else None)
        if kept.heads or cut:
            hook(block.attention_output.register_forward_pre_hook, _heads_seen, index, cut)
        if kept.rest:
            hook(block.attention_output.register_forward_hook, _attention_seen, index)
        if cut:
            hook(block.mlp.register_forward_pre_hook, _mlp_cut)
        if kept.rest:
            hook(block.mlp.register_forward_hook, _mlp_seen, index)
    hook(blocks[-1].block.register_forward_hook, _stream_seen)
    if kept.pool_mlp is not None:
        hook(kept.pool_mlp.register_forward_hook, _pool_mlp_seen)


def _embedding_seen(kept: Capture, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    kept.keep("embedding", _first(args, kwargs))


def _heads_seen(
    kept: Capture, index: int, trim: bool, module: nn.Module, args: tuple[Tensor, ...]
) -> tuple[Tensor, ...] | None:
    if kept.heads:
        kept.keep(f"z {index}", args[0])
    return (kept.cut(args[0]),) if trim else None


def _attention_seen(
    kept: Capture, index: int, module: nn.Module, args: tuple[Tensor, ...], output: Tensor
) -> None:
    if kept.rounds:
        kept.keep(f"attention {index}", output)


def _mlp_cut(kept: Capture, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (kept.cut(args[0]), *args[1:])


def _mlp_seen(kept: Capture, index: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
    kept.keep(f"mlp {index}", output)


def _stream_seen(kept: Capture, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    kept.keep("stream", output[0] if isinstance(output, tuple) else output)


def _pool_mlp_seen(kept: Capture, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
    kept.keep_whole("pool_mlp", output)


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


def _split(block: nn.Module, name: str, stack: ExitStack, only: Callable[[Tensor], Tensor] | None) -> None:
    """Put a `SplitAttention` in the place of a block's attention."""
    original = block.get_submodule(name)
    if not (isinstance(original, nn.MultiheadAttention) and can_split(original)):
        raise ResidualError(
            f"{type(block).__name__}.{name} is a MultiheadAttention with extra keys, other widths or tokens "
            "first: it can't be split."
        )
    replace_module(block, name, SplitAttention(original, only), stack)
