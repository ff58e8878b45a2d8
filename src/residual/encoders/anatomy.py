"""Where things are inside a transformer: all that a model family has to tell.

An `Anatomy` is a list of dotted paths. `Anatomy.locate` follows them once in a real module and gives the
`Parts` that tracing works with; every path that leads nowhere is named in one error. Head counts and widths
are read off the module, never written down.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from residual.encoders.pooling import CLASS_TOKEN, AttentionPool, Pool, PoolingAttention
from residual.encoders.wrappers import affine, inside
from residual.errors import ResidualError


@dataclass(frozen=True)
class Projection:
    """`x W + b`: a linear layer, one with adapters around it, or a bare matrix `(D, d)`."""

    source: nn.Module | Tensor

    def affine(self) -> tuple[Tensor, Tensor | None]:
        """`W (D, d)`, and `b (d,)` or None."""
        return affine(self.source)

    @property
    def tensors(self) -> list[Tensor]:
        """What they are made of."""
        return [self.source] if isinstance(self.source, Tensor) else [*self.source.parameters()]

    @property
    def output_dim(self) -> int:
        """Width of the output, `d`."""
        if isinstance(self.source, Tensor):
            return self.source.shape[1]
        return int(inside(self.source).out_features)

    def __call__(self, x: Tensor) -> Tensor:
        """`x W + b`."""
        return x @ self.source if isinstance(self.source, Tensor) else self.source.forward(x)


@dataclass(frozen=True)
class BlockParts:
    """One block: the output projection of its attention, its MLP, and what scales each, if anything.

    `multihead` is the name of the block's `nn.MultiheadAttention`, which hides its output projection and is
    stood in for while a forward pass is captured; None where the projection is called as a module.
    """

    block: nn.Module
    attention_output: nn.Module
    mlp: nn.Module
    heads: int
    attention_scale: Tensor | None
    mlp_scale: Tensor | None
    multihead: str | None = None


@dataclass(frozen=True)
class Parts:
    """What an `Anatomy` found.

    Args:
        blocks: in order.
        final_norm: the last LayerNorm.
        projection: from the normed token to the output, or None.
        pool: how the encoder pools by itself.
        pooling_attention: the module of an `AttentionPool`.
        prefix: tokens ahead of the patches: class token, registers.
        class_token: whether the first of them is one.
    """

    blocks: tuple[BlockParts, ...]
    final_norm: nn.LayerNorm
    projection: Projection | None
    pool: Pool
    pooling_attention: PoolingAttention | None = None
    prefix: int = 1
    class_token: bool = True

    @property
    def heads(self) -> int:
        """Heads a block."""
        return self.blocks[0].heads

    @property
    def head_width(self) -> int:
        """Numbers of a head before the output projection."""
        return inside(self.blocks[0].attention_output).in_features // self.heads

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.final_norm.normalized_shape[-1]

    def mapped(self) -> list[Tensor]:
        """The weights between a unit's own numbers and the output."""
        found: list[Tensor | None] = [*self.final_norm.parameters()]
        for block in self.blocks:
            found += [*block.attention_output.parameters(), block.attention_scale]
        if self.projection is not None:
            found += self.projection.tensors
        if self.pooling_attention is not None:
            found += self.pooling_attention.module.parameters()
        return [value for value in found if value is not None]

    @property
    def output_dim(self) -> int:
        """Width of the output, `d`."""
        return self.width if self.projection is None else self.projection.output_dim


@dataclass(frozen=True)
class Anatomy:
    """Dotted paths of the parts of a pre-norm transformer, whose residual stream starts where its blocks do.

    Args:
        blocks: the list of blocks.
        attention_output: inside a block, the linear layer that mixes the heads; its input is the heads'
            outputs side by side.
        heads: inside a block, the attribute that holds the number of heads.
        mlp: inside a block, the module whose output is added to the stream (before a layer scale).
        final_norm: the last LayerNorm.
        projection: the linear map from the normed token to the output (a linear layer or a matrix), or None.
        attention_scale: inside a block, the tensor that scales the attention's output, if any; an
            `nn.Identity` on the way means there is none.
        mlp_scale: the same for the MLP.
        block_kinds: names of block classes that are pre-norm and add nothing else; empty if all are.
        pool: how the encoder pools by itself.
        prefix: number of tokens ahead of the patches.
        class_token: whether the first of them is a class token.
    """

    blocks: str
    attention_output: str
    heads: str
    mlp: str
    final_norm: str
    projection: str | None = None
    attention_scale: str | None = None
    mlp_scale: str | None = None
    block_kinds: tuple[str, ...] = ()
    pool: Pool = CLASS_TOKEN
    prefix: int = 1
    class_token: bool = True

    def under(self, prefix: str) -> Anatomy:
        """The same anatomy of a model that lies at `prefix` inside another."""
        if not prefix:
            return self
        whole = ("blocks", "final_norm", "projection")
        paths: dict[str, Any] = {
            name: f"{prefix}.{getattr(self, name)}" for name in whole if getattr(self, name)
        }
        if isinstance(self.pool, AttentionPool):
            paths["pool"] = replace(self.pool, pool=f"{prefix}.{self.pool.pool}")
        return replace(self, **paths)

    def locate(self, module: nn.Module) -> Parts:
        """Follow every path in `module`.

        Raises:
            ResidualError: parts are missing or are not of the kind that can be split; names all of them.
        """
        if complaint := self.complaint(module):
            raise ResidualError(f"{type(module).__name__} can't be split: {complaint}")
        blocks = tuple(self._block(block) for block in _follow(module, self.blocks))
        if len({(block.heads, inside(block.attention_output).in_features) for block in blocks}) > 1:
            raise ResidualError(
                f"{type(module).__name__} can't be split: its blocks differ in heads or width, got "
                f"{[block.heads for block in blocks]} heads."
            )
        pool = self.pool
        return Parts(
            blocks=blocks,
            final_norm=_follow(module, self.final_norm),
            projection=Projection(_follow(module, self.projection)) if self.projection else None,
            pool=pool,
            pooling_attention=pool.kind(_follow(module, pool.pool))
            if isinstance(pool, AttentionPool)
            else None,
            prefix=self.prefix,
            class_token=self.class_token,
        )

    def complaint(self, module: nn.Module) -> str:
        """What was looked for and not found, as a sentence; empty if everything is there."""
        missing = self.missing(module)
        return f"looked for {', '.join(self._paths())}; not found: {', '.join(missing)}." if missing else ""

    def missing(self, module: nn.Module) -> list[str]:
        """The parts that aren't there, each with what is in its place if that is of another kind."""
        found = [
            _wrong(module, self.final_norm, nn.LayerNorm),
            _wrong(module, self.projection, nn.Linear | Tensor),
        ]
        if isinstance(self.pool, AttentionPool):
            found.append(_wrong(module, self.pool.pool, nn.Module))
            if found[-1] is None:
                path = self.pool.pool
                found += [f"{path}.{name}" for name in self.pool.kind.missing(_follow(module, path))]
        blocks, said = _get(module, self.blocks), set()
        if not isinstance(blocks, nn.ModuleList | nn.Sequential) or len(blocks) == 0:
            found += [self.blocks, *(f"{self.blocks}.*.{path}" for path in self._block_paths())]
        else:
            for index, block in enumerate(blocks):
                for wrong in self._wrong_in(block):
                    if wrong not in said:  # of the same fault in every block, the first tells
                        found.append(f"{self.blocks}.{index}{wrong}")
                    said.add(wrong)
        return [wrong for wrong in found if wrong]

    def _wrong_in(self, block: nn.Module) -> list[str]:
        """What is wrong in one block."""
        kind = type(block).__name__
        if self.block_kinds and kind not in self.block_kinds:
            expected = " or ".join(self.block_kinds)
            return [f" as a block that norms before its attention and MLP (a {kind}, expected a {expected})"]
        found = [
            _wrong(block, self.attention_output, nn.Linear),
            _hidden(block, self.attention_output),
            _wrong(block, self.mlp, nn.Module),
            _wrong(block, self.heads, int),
            _wrong_scale(block, self.attention_scale),
            _wrong_scale(block, self.mlp_scale),
        ]
        return [f".{wrong}" for wrong in found if wrong]

    def _block(self, block: nn.Module) -> BlockParts:
        name = self.attention_output.rpartition(".")[0]
        hidden = bool(name) and isinstance(_follow(block, name), nn.MultiheadAttention)
        return BlockParts(
            block=block,
            attention_output=_follow(block, self.attention_output),
            mlp=_follow(block, self.mlp),
            heads=_follow(block, self.heads),
            attention_scale=_get(block, self.attention_scale),
            mlp_scale=_get(block, self.mlp_scale),
            multihead=name if hidden else None,
        )

    def _block_paths(self) -> list[str]:
        return [path for path in (self.attention_output, self.heads, self.mlp) if path]

    def _paths(self) -> list[str]:
        whole = [self.final_norm, self.projection, self.blocks]
        if isinstance(self.pool, AttentionPool):
            whole.append(self.pool.pool)
        return [path for path in whole if path] + [f"{self.blocks}.*.{path}" for path in self._block_paths()]


_LINEAR = (nn.Linear, nn.Linear | Tensor)  # what may be inside a layer of peft


def _follow(module: Any, path: str) -> Any:
    return attrgetter(path)(module)


def _get(module: Any, path: str | None) -> Any:
    if path is None:
        return None
    try:
        return _follow(module, path)
    except AttributeError:
        return None


def _wrong(module: Any, path: str | None, kind: Any) -> str | None:
    """`path` if it leads nowhere, the path and what is there if that isn't a `kind`, else None."""
    if path is None:
        return None
    value = _get(module, path)
    if value is None:
        return path
    held = inside(value) if kind in _LINEAR else value
    if not isinstance(held, kind):
        if held is not inside(value):
            return f"{path} (inside a layer of peft: merge its adapters first, model.merge_and_unload())"
        expected = getattr(kind, "__name__", "Linear")
        own = type(value).__name__
        own = f"{type(value).__module__}.{own}" if own == expected else own
        return f"{path} (a {own}, expected a {expected})"
    weight = getattr(held, "weight", None)
    if isinstance(weight, Tensor) and not weight.is_floating_point():
        return f"{path} (quantized to {str(weight.dtype).removeprefix('torch.')}, expected its own weights)"
    return None


def _hidden(block: Any, path: str) -> str | None:
    """The same for an attention that hides its output projection, and in which no layer of peft is called."""
    name = path.rpartition(".")[0]
    attention = _get(block, name) if name else None
    if not isinstance(inside(attention), nn.MultiheadAttention):
        return None
    if inside(attention) is attention and inside(output := _get(block, path)) is output:
        return None
    return f"{name} as a MultiheadAttention of its own (merge peft's adapters in it: merge_and_unload())"


def _wrong_scale(block: Any, path: str | None) -> str | None:
    """The same for a layer scale: an `nn.Identity` in the place of its module means that there is none."""
    if path is None or isinstance(_get(block, path.rpartition(".")[0]), nn.Identity):
        return None
    return _wrong(block, path, Tensor)
