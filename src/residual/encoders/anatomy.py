"""Where things are inside a transformer: all that a model family has to tell.

An `Anatomy` is a list of dotted paths. `Anatomy.locate` follows them once in a real module and gives the
`Parts` that tracing works with; every path that leads nowhere is named in one error. Head counts and widths
are read off the module, never written down. Where versions of a library have a part in different places, its
path is a tuple of those, tried in turn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from residual.encoders.paths import Path, at, below, each_of, first, follow, get, said, versions_of
from residual.encoders.pooling import CLASS_TOKEN, AttentionPool, Pool, PoolingAttention
from residual.encoders.wrappers import affine, inside
from residual.errors import ResidualError

CENTERINGS = ("shared", "own")
_NO_MEAN = "none"
# Norms that divide by `sqrt(mean(x²) + ε)` and multiply by a weight, as their libraries call them.
_FLOAT32_NORMS = ("RmsNormFp32", "Aimv2RMSNorm")  # which work in float32 whatever they are given
_RMS_NORMS = ("RMSNorm", "RmsNorm", *_FLOAT32_NORMS)


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
        final_norm: the last norm: a LayerNorm, or an RMS norm, which subtracts no mean and adds nothing.
        projection: from the normed token to the output, or None.
        pool: how the encoder pools by itself.
        pooling_attention: the module of an `AttentionPool`.
        prefix: tokens ahead of the patches: class token, registers.
        class_token: whether the first of them is one.
    """

    blocks: tuple[BlockParts, ...]
    final_norm: Any
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
        return inside(self.blocks[0].attention_output).out_features

    @property
    def centred(self) -> bool:
        """Whether the last norm subtracts the stream's mean."""
        return isinstance(self.final_norm, nn.LayerNorm)

    @property
    def norms_in_float32(self) -> bool:
        """Whether the last norm rounds what is in float64."""
        return type(self.final_norm).__name__ in _FLOAT32_NORMS

    def centering(self, asked: str) -> str:
        """How units share the mean that the last norm subtracts, "none" where it subtracts none."""
        if not self.centred:
            return _NO_MEAN
        return (
            CENTERINGS[0] if asked == _NO_MEAN else asked
        )  # a text tower's norm may be another than the image's

    @property
    def epsilon(self) -> float:
        """What the last norm adds to the variance, or to the mean square."""
        return _epsilon(self.final_norm)

    @property
    def pool_mlp(self) -> nn.Module | None:
        """The MLP of an attention pool, where there is one."""
        return None if self.pooling_attention is None else self.pooling_attention.mlp

    def mapped(self) -> list[Tensor]:
        """The weights between a unit's own numbers and the output."""
        found: list[Tensor | None] = [*self.final_norm.parameters()]
        for block in self.blocks:
            found += [*block.attention_output.parameters(), block.attention_scale]
        if self.projection is not None:
            found += self.projection.tensors
        if self.pooling_attention is not None:
            found += self.pooling_attention.parameters()
        return [value for value in found if value is not None]

    @property
    def output_dim(self) -> int:
        """Width of the output, `d`."""
        if self.projection is not None:
            return self.projection.output_dim
        return self.width if self.pooling_attention is None else self.pooling_attention.output_dim


@dataclass(frozen=True)
class Anatomy:
    """Dotted paths of the parts of a pre-norm transformer, whose residual stream starts where its blocks do.

    A tuple of paths stands for the first that leads somewhere.

    Args:
        blocks: the list of blocks.
        attention_output: inside a block, the linear layer that mixes the heads; its input is the heads'
            outputs side by side.
        heads: inside a block, the attribute that holds the number of heads.
        mlp: inside a block, the module whose output is added to the stream (before a layer scale).
        final_norm: the last LayerNorm or RMS norm.
        projection: the linear map from the normed token to the output (a linear layer or a matrix), or None.
        attention_scale: inside a block, the tensor that scales the attention's output, if any; an
            `nn.Identity` on the way means there is none.
        mlp_scale: the same for the MLP.
        block_kinds: names of block classes that are pre-norm and add nothing else; empty if all are.
        pool: how the encoder pools by itself.
        prefix: number of tokens ahead of the patches.
        class_token: whether the first of them is a class token.
    """

    blocks: Path
    attention_output: Path
    heads: Path
    mlp: Path
    final_norm: Path
    projection: Path | None = None
    attention_scale: Path | None = None
    mlp_scale: Path | None = None
    block_kinds: tuple[str, ...] = ()
    pool: Pool = CLASS_TOKEN
    prefix: int = 1
    class_token: bool = True

    def under(self, prefix: str) -> Anatomy:
        """The same anatomy of a model that lies at `prefix` inside another."""
        if not prefix:
            return self
        whole = ("blocks", "final_norm", "projection")
        paths: dict[str, Any] = {name: below(prefix, getattr(self, name)) for name in whole}
        if isinstance(self.pool, AttentionPool):
            paths["pool"] = replace(self.pool, pool=below(prefix, self.pool.pool))
        return replace(self, **paths)

    def locate(self, module: nn.Module) -> Parts:
        """Follow every path in `module`.

        Raises:
            ResidualError: parts are missing or are not of the kind that can be split; names all of them.
        """
        if complaint := self.complaint(module):
            raise ResidualError(f"{type(module).__name__} can't be split: {complaint}", versions_of(module))
        blocks = tuple(self._block(block) for block in follow(module, self.blocks))
        if len({(block.heads, inside(block.attention_output).in_features) for block in blocks}) > 1:
            raise ResidualError(
                f"{type(module).__name__} can't be split: its blocks differ in heads or width, got "
                f"{[block.heads for block in blocks]} heads."
            )
        pool = self.pool
        return Parts(
            blocks=blocks,
            final_norm=follow(module, self.final_norm),
            projection=Projection(follow(module, self.projection)) if self.projection else None,
            pool=pool,
            pooling_attention=pool.kind(follow(module, pool.pool))
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
            _wrong_norm(module, self.final_norm),
            _wrong(module, self.projection, nn.Linear | Tensor),
        ]
        if isinstance(self.pool, AttentionPool):
            path = self.pool.pool
            found.append(_wrong(module, path, nn.Module))
            if found[-1] is None:
                lacking = self.pool.kind.missing(follow(module, path))
                found += [f"{first(module, path)}.{name}".lstrip(".") for name in lacking]
        blocks, told = get(module, self.blocks), set()
        if not isinstance(blocks, nn.ModuleList | nn.Sequential) or len(blocks) == 0:
            found += [said(self.blocks), *self._block_paths()]
        else:
            place = first(module, self.blocks)
            for index, block in enumerate(blocks):
                for wrong in self._wrong_in(block):
                    if wrong not in told:  # of the same fault in every block, the first tells
                        found.append(f"{place}.{index}{wrong}")
                    told.add(wrong)
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
        name = first(block, self.attention_output).rpartition(".")[0]
        hidden = bool(name) and isinstance(follow(block, name), nn.MultiheadAttention)
        return BlockParts(
            block=block,
            attention_output=follow(block, self.attention_output),
            mlp=follow(block, self.mlp),
            heads=follow(block, self.heads),
            attention_scale=get(block, self.attention_scale),
            mlp_scale=get(block, self.mlp_scale),
            multihead=name if hidden else None,
        )

    def _block_paths(self) -> list[str]:
        places = [self.attention_output, self.heads, self.mlp]
        return [f"{said(self.blocks)}.*.{said(path)}" for path in places if path]

    def _paths(self) -> list[str]:
        whole = [self.final_norm, self.projection, self.blocks]
        if isinstance(self.pool, AttentionPool):
            whole.append(self.pool.pool)
        return [said(path) for path in whole if path] + self._block_paths()


_LINEAR = (nn.Linear, nn.Linear | Tensor)  # what may be inside a layer of peft


def check_centering(centering: str) -> None:
    """Refuse what isn't one.

    Raises:
        ResidualError: it isn't.
    """
    if centering not in (*CENTERINGS, _NO_MEAN):
        raise ResidualError(f"centering is {' or '.join(map(repr, CENTERINGS))}, got {centering!r}.")


def _wrong(module: Any, path: Path | None, kind: Any) -> str | None:
    """`path` if it leads nowhere, the path and what is there if that isn't a `kind`, else None."""
    if path is None:
        return None
    value = get(module, path)
    if value is None:
        return said(path)
    held, place = inside(value) if kind in _LINEAR else value, first(module, path)
    if not isinstance(held, kind):
        if held is not inside(value):
            return f"{place} (inside a layer of peft: merge its adapters first, model.merge_and_unload())"
        expected = getattr(kind, "__name__", "Linear")
        own = type(value).__name__
        own = f"{type(value).__module__}.{own}" if own == expected else own
        return f"{place} (a {own}, expected a {expected})"
    weight = getattr(held, "weight", None)
    if isinstance(weight, Tensor) and not weight.is_floating_point():
        return f"{place} (quantized to {str(weight.dtype).removeprefix('torch.')}, expected its own weights)"
    return None


def _wrong_norm(module: Any, path: Path) -> str | None:
    norm = get(module, path)
    return None if _is_rms(norm) else _wrong(module, path, nn.LayerNorm)


def is_norm(module: Any) -> bool:
    """Whether it is a LayerNorm or an RMS norm."""
    return isinstance(module, nn.LayerNorm) or _is_rms(module)


def _is_rms(norm: Any) -> bool:
    return type(norm).__name__ in _RMS_NORMS and isinstance(_epsilon(norm), float)


def _epsilon(norm: Any) -> Any:
    return norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps


def _hidden(block: Any, path: Path) -> str | None:
    """The same for an attention that hides its output projection, and in which no layer of peft is called."""
    name = first(block, path).rpartition(".")[0]
    attention = get(block, name) if name else None
    if not isinstance(inside(attention), nn.MultiheadAttention):
        return None
    if inside(attention) is attention and inside(output := get(block, path)) is output:
        return None
    return f"{name} as a MultiheadAttention of its own (merge peft's adapters in it: merge_and_unload())"


def _wrong_scale(block: Any, path: Path | None) -> str | None:
    """The same for a layer scale: an `nn.Identity` in the place of its module means that there is none."""
    held = [at(block, each.rpartition(".")[0]) for each in each_of(path)]
    if path is None or any(isinstance(value, nn.Identity) for value in held):
        return None
    return _wrong(block, path, Tensor)
