"""Run a tower and take its coordinates: the one way from inputs to small numbers."""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from residual.encoders.anatomy import Parts
from residual.encoders.changes import EncoderLike, checked_encoder
from residual.encoders.encoder import Encoder
from residual.encoders.family import Tower
from residual.encoders.pixels import Pixels
from residual.encoders.running import evaluating, own_code, uncompiled
from residual.tracing.attention import LayerSources, Take, Watch, watching
from residual.tracing.capture import Capture, capture, place_hooks, without_autocast
from residual.tracing.checks import TOLERANCES, check_sum, computed_in
from residual.tracing.coordinates import Coordinates, SourcedCoordinates
from residual.tracing.linearization import Linearization, linearization_of
from residual.tracing.stand_ins import PatchProduct, cuts_patches, replace_module
from residual.tracing.token_choice import Pooling, resolve

Texts = Sequence[str] | Int[Tensor, "n t"]


def trace(
    encoder: EncoderLike,
    inputs: Pixels | Texts,
    tower: str = "image",
    pooling: str = "own",
    *,
    sources: bool = False,
) -> tuple[Coordinates, Float[Tensor, "n *t d"]]:
    """Run `inputs` through a tower: their coordinates, and the model's own output.

    Args:
        encoder: from `load_encoder` or `wrap_encoder`, or what wraps one. One that was compiled is traced
            compiled.
        inputs: pixels from `encoder.pixels`, of torch or NumPy; or texts, or their token ids.
        tower: "image" or "text".
        pooling: which tokens, see `decompose`.
        sources: give `SourcedCoordinates`, whose `.sources (n, *t, L, H, j, h)` split `z` by the token
            attended to, and `.attention (n, *t, L, H, j)`. Runs uncompiled, and twice where several normed
            tokens are pooled.

    Raises:
        ResidualError: inputs that don't fit, a tower that can't be split, or tokens that aren't there; or
            what heads attend to can't be seen, or misses what they give.

    Example:
        >>> import residual
        >>> encoder = residual.load_encoder("picto", device="cpu")
        >>> coordinates, output = trace(encoder, torch.zeros(2, 3, 64, 64))
        >>> coordinates.z.shape, coordinates.mlp.shape  # of each head; of each MLP
        (torch.Size([2, 8, 6, 32]), torch.Size([2, 8, 192]))
    """
    encoder = checked_encoder(encoder)
    return (traced_by_source if sources else traced)(encoder, inputs, tower, pooling)


def traced_by_source(
    encoder: Encoder, inputs: Pixels | Texts, tower: str, pooling: str, parts: Parts | None = None
) -> tuple[SourcedCoordinates, Float[Tensor, "n *t d"]]:
    """The same with the sources of all heads."""
    attention, sources, spread = [], [], []

    def take(_: int, layer: LayerSources) -> None:
        attention.append(layer.attention)
        sources.append(layer.sources())
        spread.append(layer.spread)

    coordinates, output = traced(encoder, inputs, tower, pooling, parts, take)
    by_source = SourcedCoordinates(
        **{field.name: getattr(coordinates, field.name) for field in fields(Coordinates)},
        attention=torch.stack(attention, dim=-3),  # (n, …, L, H, j)
        sources=torch.stack(sources, dim=-4),  # (n, …, L, H, j, h)
        spread=torch.stack(spread, dim=-3),
    )
    return by_source, output


def traced(
    encoder: Encoder,
    inputs: Pixels | Texts,
    tower: str,
    pooling: str,
    parts: Parts | None = None,
    take: Take | None = None,
) -> tuple[Coordinates, Float[Tensor, "n *t d"]]:
    """`trace`, for whoever has looked up the tower's parts already; `take` gets each layer's sources."""
    if take is not None:
        coordinates, output = _by_source(encoder, inputs, tower, pooling, parts, take)
    elif encoder.compiling is not None and not torch.compiler.is_compiling():
        coordinates, output = _compiled(encoder, inputs, tower, pooling)
    else:
        coordinates, output = _eager(encoder, inputs, tower, pooling, parts)
    if not encoder.changes or tower != "image":
        return coordinates, output
    return coordinates, _changed(encoder, coordinates, output, pooling, parts)


_checked: WeakKeyDictionary[Linearization, bool] = WeakKeyDictionary()


def _changed(
    encoder: Encoder, coordinates: Coordinates, output: Tensor, pooling: str, parts: Parts | None
) -> Tensor:
    """The sum of what an encoder's changes make of its units; these as they are must sum to the model's own
    output, on the first batch.
    """
    parts = parts or encoder.parts_of("image")
    changed = linearization_of(encoder, parts, "image", pooling)
    if changed not in _checked:
        check_sum(encoder, Linearization.of(encoder, "image", pooling, changed=False), coordinates, output)
        _checked[changed] = True
    with without_autocast(output.device):
        return changed.output(coordinates)


@uncompiled
def _eager(
    encoder: Encoder, inputs: Pixels | Texts, tower: str, pooling: str, parts: Parts | None
) -> tuple[Coordinates, Tensor]:
    ready = _ready(encoder, inputs, tower)
    with (
        _nothing_compiled(),
        evaluating(encoder.module, hooked=True),
        capture(encoder, tower, pooling, parts) as kept,
    ):
        return captured_pass(kept, kept.parts, encoder.tower(tower), encoder.module, ready)


@uncompiled
def _by_source(
    encoder: Encoder, inputs: Pixels | Texts, tower: str, pooling: str, parts: Parts | None, take: Take
) -> tuple[Coordinates, Tensor]:
    """The same, layers handing over their sources.

    Where several normed tokens are pooled, their shares are known at the end only. Then the model runs once
    more, and each layer is pooled as it comes by: queries and keys of all layers, kept till the end, would be
    twice what the stream is.
    """
    ready = _ready(encoder, inputs, tower)
    parts = parts or encoder.parts_of(tower)
    encode, tolerance = encoder.tower(tower).encode, TOLERANCES[computed_in(encoder)]
    with _nothing_compiled(), evaluating(encoder.module, hooked=True):
        with capture(encoder, tower, pooling, parts) as kept, ExitStack() as stack:
            watch = Watch(kept, parts, encoder.name, take)
            several = kept.pooling.reduce in ("mean of outputs", "attention")
            if not several:
                stack.enter_context(watching(watch))
            kept.expect(encoder.module, ready)
            output = encode(encoder.module, ready)
            coordinates, stream = kept.take()
        if several:
            with without_autocast(stream.device):
                share, std = kept.shares(stream)
            with capture(encoder, tower, pooling, parts, kinds=()) as again:
                watch = Watch(again, parts, encoder.name, take, share, std)
                with watching(watch):
                    encode(encoder.module, ready)
        watch.check(tolerance)
    return coordinates, output if kept.pooling.own else reference(parts, kept.pooling, stream)


def captured_pass(
    kept: Capture, parts: Parts, tower: Tower, module: nn.Module, ready: Tensor
) -> tuple[Coordinates, Tensor]:
    """One forward pass with hooks in place: its coordinates, and the output that they must sum to."""
    kept.expect(module, ready)
    output = tower.encode(module, ready)
    coordinates, stream = kept.take()
    return coordinates, output if kept.pooling.own else reference(parts, kept.pooling, stream)


_lock, _stance, _traces = Lock(), ExitStack(), 0


@contextmanager
def _nothing_compiled() -> Generator[None]:
    """Parts of a model that the user compiled were compiled without hooks, and would not call them.

    What compiled code does is said for the whole process: the first trace to begin says it, the last to end
    takes it back.
    """
    global _traces
    with _lock:
        if not _traces:
            _stance.enter_context(torch.compiler.set_stance("force_eager"))
        _traces += 1
    try:
        yield
    finally:
        with _lock:
            _traces -= 1
            if not _traces:
                _stance.close()


def _compiled(
    encoder: Encoder, inputs: Pixels | Texts, tower: str, pooling: str
) -> tuple[Coordinates, Tensor]:
    ready = _ready(encoder, inputs, tower)
    return encoder.made_once((tower, pooling), lambda: _CompiledTrace(encoder, tower, pooling))(ready)


def _ready(encoder: Encoder, inputs: Pixels | Texts, tower: str) -> Tensor:
    """Pixels or token ids where the model wants them."""
    if tower == "image":
        return encoder.checked_pixels(inputs)
    if isinstance(inputs, np.ndarray):
        return encoder.checked_ids(torch.from_numpy(inputs))
    return encoder.checked_ids(inputs) if isinstance(inputs, Tensor) else encoder.tokenize(inputs)


class _CompiledTrace:
    """A traced forward pass as one compiled function.

    Compiled code doesn't look whether hooks come or go, so it is given a twin of the model: its own modules,
    with hooks that stay, around the same parameters. The model itself isn't touched.
    """

    def __init__(self, encoder: Encoder, tower: str, pooling: str):
        self.twin = twin_of(encoder.module).eval()
        self.tower = encoder.tower(tower)
        self.parts = self.tower.anatomy_of(self.twin).locate(self.twin)
        self.kept = Capture(self.parts, resolve(pooling, self.parts, encoder.name))
        for_good = ExitStack()
        place_hooks(self.kept, self.parts, for_good)
        for name, part in list(self.twin.named_modules()):
            if cuts_patches(part):
                replace_module(self.twin, name, PatchProduct(part), for_good)
        compiler = encoder.compiling or torch.compile
        self.run = compiler(own_code(lambda ready: self._run(ready)))

    def __call__(self, ready: Tensor) -> tuple[Coordinates, Tensor]:
        values, output = self.run(ready)
        named: dict[str, Any] = dict(zip(_FIELDS, values, strict=True))
        return Coordinates(**named), output

    def _run(self, ready: Tensor) -> tuple[list[Tensor | None], Tensor]:
        coordinates, output = captured_pass(self.kept, self.parts, self.tower, self.twin, ready)
        return [getattr(coordinates, name) for name in _FIELDS], output


def twin_of(module: nn.Module) -> nn.Module:
    """Modules of its own around the same parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


_FIELDS = tuple(field.name for field in fields(Coordinates))


def reference(parts: Parts, pooling: Pooling, stream: Float[Tensor, "n *t D"]) -> Float[Tensor, "n *k d"]:
    """What the model's own last norm and projection make of the stream, where it pools another way itself."""
    output = parts.final_norm.forward(stream)  # not called, so that hooks see the model's own calls only
    if pooling.reduce == "mean of outputs":
        output = output.mean(1)
    return output if parts.projection is None else parts.projection(output)
