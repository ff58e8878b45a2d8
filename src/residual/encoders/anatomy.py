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
from residual.errors import ResidualError


@dataclass(frozen=True)
class Projection:
    """`x W + b`: a linear layer, or a bare matrix `(D, d)`."""

    source: nn.Linear | Tensor

    @property
    def weight(self) -> Tensor:
        """`W (D, d)`."""
        return self.source.weight.T if isinstance(self.source, nn.Linear) else self.source

    @property
    def bias(self) -> Tensor | None:
        """`b (d,)`, or None."""
        return self.source.bias if isinstance(self.source, nn.Linear) else None

    def __call__(self, x: Tensor) -> Tensor:
        """`x W + b`."""
        return self.source.forward(x) if isinstance(self.source, nn.Linear) else x @ self.source


@dataclass(frozen=True)
class BlockParts:
    """One block: the output projection of its attention, its MLP, and what scales each, if anything.

    `multihead` is the name of the block's `nn.MultiheadAttention`, which hides its output projection and is
    stood in for while a forward pass is captured; None where the projection is called as a module.
    """

    block: nn.Module
    attention_output: nn.Linear
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
    def width(self) -> int:
        """Width of the residual stream."""
        return self.final_norm.normalized_shape[-1]

    def mapped(self) -> list[Tensor]:
        """The weights between a unit's own numbers and the output."""
        found: list[Tensor | None] = [*self.final_norm.parameters()]
        for block in self.blocks:
            found += [*block.attention_output.parameters(), block.attention_scale]
        if self.projection is not None:
            found += [self.projection.weight, self.projection.bias]
        if self.pooling_attention is not None:
            found += self.pooling_attention.module.parameters()
        return [value for value in found if value is not None]

    @property
    def output_dim(self) -> int:
        """Width of the output, `d`."""
        return self.width if self.projection is None else self.projection.weight.shape[1]


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
        if len({(block.heads, block.attention_output.in_features) for block in blocks}) > 1:
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
        inside = [
            _wrong(block, self.attention_output, nn.Linear),
            _wrong(block, self.mlp, nn.Module),
            _wrong(block, self.heads, int),
            _wrong_scale(block, self.attention_scale),
            _wrong_scale(block, self.mlp_scale),
        ]
        return [f".{wrong}" for wrong in inside if wrong]

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
    if not isinstance(value, kind):
        expected = getattr(kind, "__name__", "Linear")
        return f"{path} (a {type(value).__name__}, expected a {expected})"
    return None


def _wrong_scale(block: Any, path: str | None) -> str | None:
    """The same for a layer scale: an `nn.Identity` in the place of its module means that there is none."""
    if path is None or isinstance(_get(block, path.rpartition(".")[0]), nn.Identity):
        return None
    return _wrong(block, path, Tensor)
