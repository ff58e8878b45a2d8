"""Where things are inside a vision transformer: all that a model family has to tell.

An `Anatomy` is a list of dotted paths. `Anatomy.locate` follows them once in a real module and gives the
`Parts` that tracing works with; every path that leads nowhere is named in one error. Head counts and widths
are read off the module, never written down.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from residual.errors import ResidualError


@dataclass(frozen=True)
class BlockParts:
    """One block: the output projection of its attention, its MLP, and what scales each, if anything."""

    attention_output: nn.Linear
    mlp: nn.Module
    heads: int
    attention_scale: Tensor | None
    mlp_scale: Tensor | None


@dataclass(frozen=True)
class Parts:
    """The submodules an `Anatomy` found, and which token (its index) the model pools."""

    embedding: nn.Module
    blocks: tuple[BlockParts, ...]
    final_norm: nn.LayerNorm
    projection: nn.Linear | None
    token: int

    @property
    def heads(self) -> int:
        """Heads a block."""
        return self.blocks[0].heads

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.final_norm.normalized_shape[-1]


@dataclass(frozen=True)
class Anatomy:
    """Dotted paths of the parts of a pre-norm vision transformer.

    Args:
        embedding: module whose output starts the residual stream (all that is added or normalised before the
            first block is behind it).
        blocks: the list of blocks.
        attention_output: inside a block, the linear layer that mixes the heads; its input is the heads'
            outputs side by side.
        heads: inside a block, the attribute that holds the number of heads.
        mlp: inside a block, the module whose output is added to the stream.
        final_norm: the LayerNorm of the pooled token.
        projection: the linear map from the normed token to the output, or None.
        attention_scale: inside a block, the tensor that scales the attention's output, or None.
        mlp_scale: the same for the MLP.
        token: index of the token that the model pools by itself ("own" pooling).
    """

    embedding: str
    blocks: str
    attention_output: str
    heads: str
    mlp: str
    final_norm: str
    projection: str | None = None
    attention_scale: str | None = None
    mlp_scale: str | None = None
    token: int = 0

    def locate(self, module: nn.Module) -> Parts:
        """Follow every path in `module`.

        Raises:
            ResidualError: parts are missing or are not of the kind that can be split; names all of them.
        """
        if complaint := self.complaint(module):
            raise ResidualError(f"{type(module).__name__} can't be split: {complaint}")
        blocks = tuple(self._block(block) for block in _follow(module, self.blocks))
        parts = Parts(
            embedding=_follow(module, self.embedding),
            blocks=blocks,
            final_norm=_follow(module, self.final_norm),
            projection=_follow(module, self.projection) if self.projection else None,
            token=self.token,
        )
        if len({(block.heads, block.attention_output.in_features) for block in blocks}) > 1:
            raise ResidualError(
                f"{type(module).__name__} can't be split: its blocks differ in heads or width, got "
                f"{[block.heads for block in blocks]} heads."
            )
        return parts

    def complaint(self, module: nn.Module) -> str:
        """What was looked for and not found, as a sentence; empty if everything is there."""
        missing = self.missing(module)
        return f"looked for {', '.join(self._paths())}; not found: {', '.join(missing)}." if missing else ""

    def missing(self, module: nn.Module) -> list[str]:
        """The parts that aren't there, each with what is in its place if that is of another kind."""
        found = [
            _wrong(module, self.embedding, nn.Module),
            _wrong(module, self.final_norm, nn.LayerNorm),
            _wrong(module, self.projection, nn.Linear),
        ]
        blocks = _get(module, self.blocks)
        if not isinstance(blocks, nn.ModuleList | nn.Sequential) or len(blocks) == 0:
            found += [self.blocks, *(f"{self.blocks}.*.{path}" for path in self._block_paths())]
        else:
            for index, block in enumerate(blocks):
                inside = [
                    _wrong(block, self.attention_output, nn.Linear),
                    _wrong(block, self.mlp, nn.Module),
                    _wrong(block, self.heads, int),
                    _wrong(block, self.attention_scale, Tensor),
                    _wrong(block, self.mlp_scale, Tensor),
                ]
                found += [f"{self.blocks}.{index}.{wrong}" for wrong in inside if wrong]
        return [wrong for wrong in found if wrong]

    def _block(self, block: nn.Module) -> BlockParts:
        return BlockParts(
            attention_output=_follow(block, self.attention_output),
            mlp=_follow(block, self.mlp),
            heads=_follow(block, self.heads),
            attention_scale=_follow(block, self.attention_scale) if self.attention_scale else None,
            mlp_scale=_follow(block, self.mlp_scale) if self.mlp_scale else None,
        )

    def _block_paths(self) -> list[str]:
        paths = [self.attention_output, self.heads, self.mlp, self.attention_scale, self.mlp_scale]
        return [path for path in paths if path]

    def _paths(self) -> list[str]:
        whole = [self.embedding, self.blocks, self.final_norm, self.projection]
        return [path for path in whole if path] + [f"{self.blocks}.*.{path}" for path in self._block_paths()]


def _follow(module: Any, path: str) -> Any:
    return attrgetter(path)(module)


def _get(module: Any, path: str) -> Any:
    try:
        return _follow(module, path)
    except AttributeError:
        return None


def _wrong(module: Any, path: str | None, kind: type) -> str | None:
    """`path` if it leads nowhere, the path and what is there if that isn't a `kind`, else None."""
    if path is None:
        return None
    value = _get(module, path)
    if value is None:
        return path
    if not isinstance(value, kind):
        return f"{path} (a {type(value).__name__}, expected a {kind.__name__})"
    return None
