"""Checkpoints without pickle: nested values and tensors in one safetensors file, for Lightning and for us.

The tensors are the file's tensors; what they are nested in is JSON in its header. Needs `lightning`; only
what trains imports this.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors import SafetensorError
from torch import Tensor, nn

from residual.errors import ResidualError
from residual.tensor_files import load_tensors, save_tensors

_KIND = "checkpoint"
_ALIGNED = 16  # bytes, the largest number that a tensor holds
# What safetensors has names for, in every version; all else is kept as bytes.
_NAMED = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
}
_SIMPLE = (type(None), bool, int, str)


class SafetensorsIO(CheckpointIO):
    """Lightning's checkpoints as safetensors: `Fabric(plugins=[SafetensorsIO()])`, or `Trainer` likewise."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write `checkpoint`, whole or not at all.

        Raises:
            ResidualError: it holds what such a file can't, by the name of the place.
        """
        save_nested(path, checkpoint)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read it back; onto `map_location` if that names a device, else onto the CPU. Runs no code.

        Raises:
            ResidualError: there is none, it isn't whole, or is of another kind.
        """
        return load_nested(path, map_location if isinstance(map_location, str | torch.device) else "cpu")

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove the file, if it is there."""
        Path(path).unlink(missing_ok=True)


def save_nested(path: str | os.PathLike[str], value: Any) -> None:
    """Write dicts, lists, tuples, numbers, texts, None and tensors, nested in any way, as one file.

    Tensors that share memory do so after reading too. Parameters come back as plain tensors.

    Raises:
        ResidualError: something else is among them, or the file can't be written.
    """
    writing = _Writing()
    try:
        tree = writing.packed(value, ())
    except RecursionError as error:
        raise ResidualError("A checkpoint can't hold what holds itself, or is nested so deep.") from error
    tensors = writing.tensors()
    try:
        save_tensors(Path(path), _KIND, tensors, {"holds": tree})
    except (OSError, SafetensorError) as error:
        raise ResidualError(f"The checkpoint {os.fspath(path)!r} can't be written ({error}).") from error


def load_nested(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Any:
    """Read what `save_nested` wrote.

    Raises:
        ResidualError: there is no such file, it isn't whole, or is of another kind.
    """
    try:
        found, note = load_tensors(Path(path), _KIND)
        # Cloned, since what is read may lie in memory as in the file, at places that no dtype is kept at.
        tensors = {name: value.clone().to(device) for name, value in found.items()}
        return _unpacked(note["holds"], tensors)
    except ResidualError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ResidualError(f"The checkpoint {os.fspath(path)!r} is damaged ({error!r}).") from error


class _Writing:
    """Nested values on their way to JSON, and the tensors met on it."""

    def __init__(self):
        # By storage: what stands for each tensor in JSON, its name, and the tensor, which keeps the storage.
        self.views: dict[int, list[tuple[dict[str, Any], str, Tensor]]] = {}

    def packed(self, value: Any, place: tuple[str, ...]) -> Any:
        """JSON for `value`: lists and simple values as they are, all else as an object with a telling key."""
        kind = type(value)
        if kind in _SIMPLE:
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if kind in (list, tuple):
            items = [self.packed(item, (*place, str(number))) for number, item in enumerate(value)]
            return items if kind is list else {"tuple": items}
        if kind is dict:
            return {"dict": self._pairs(value, place)}
        if kind is OrderedDict:  # state dicts of modules, which carry their versions along
            return {"ordered": self._pairs(value, place), "has": self._pairs(vars(value), place)}
        if kind in (Tensor, nn.Parameter):
            return self._tensor(value.detach(), place)
        raise ResidualError(
            f"A checkpoint can't hold {'/'.join(place) or 'this'}, a {kind.__module__}.{kind.__qualname__}: "
            "only dicts, lists, tuples, numbers, texts, None and tensors."
        )

    def _pairs(self, value: dict[Any, Any], place: tuple[str, ...]) -> list[list[Any]]:
        return [
            [self.packed(key, (*place, "a key")), self.packed(item, (*place, str(key)))]
            for key, item in value.items()
        ]

    def _tensor(self, tensor: Tensor, place: tuple[str, ...]) -> dict[str, Any]:
        name = "/".join(place).encode("ascii", "backslashreplace").decode()
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise ResidualError(
                f"A checkpoint can't hold the tensor {name or 'given'}: it is sparse, quantised or without "
                "data. Make it dense."
            )
        tensor = tensor.resolve_conj().resolve_neg()
        note: dict[str, Any] = {}
        self.views.setdefault(tensor.untyped_storage()._cdata, []).append((note, name, tensor))
        return note

    def tensors(self) -> dict[str, Tensor]:
        """What goes into the file, by name."""
        kept: dict[str, Tensor] = {}
        for views in self.views.values():
            note, name, tensor = views[0]
            while name in kept or name in ("", "__metadata__"):
                name += "~"
            if len(views) == 1 and _usual(tensor):
                note["tensor"] = name
                kept[name] = tensor.cpu() if tensor.is_cuda else _alone(tensor)
                continue
            ends = [_ends(each) for _, _, each in views]
            start = min(first for first, _ in ends) // _ALIGNED * _ALIGNED
            kept[name] = _bytes(tensor)[start : max(last for _, last in ends)].cpu().clone()
            for (each, _, view), (first, _) in zip(views, ends, strict=True):
                each |= {
                    "bytes": name,
                    "dtype": str(view.dtype).removeprefix("torch."),
                    "shape": list(view.shape),
                    "stride": list(view.stride()),
                    "start": first - start,
                }
        return kept


def _usual(tensor: Tensor) -> bool:
    """Whether a tensor is one that safetensors gives back with the same dtype and strides."""
    usual = torch.empty(tensor.shape, device="meta").stride()
    return tensor.dtype in _NAMED and tensor.is_contiguous() and tensor.stride() == usual


def _alone(tensor: Tensor) -> Tensor:
    """A tensor whose storage holds nothing else, as safetensors asks for."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _bytes(tensor: Tensor) -> Tensor:
    """All of its storage."""
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)


def _ends(tensor: Tensor) -> tuple[int, int]:
    """Where in its storage a tensor begins and ends, in bytes."""
    start, size = int(tensor.storage_offset()) * tensor.itemsize, tensor.itemsize
    if not tensor.numel():
        return 0, 0
    steps = sum(
        (int(length) - 1) * int(stride) for length, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return start, start + (steps + 1) * size


def _unpacked(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The value that `_Writing.packed` made JSON of."""
    if isinstance(tree, list):
        return [_unpacked(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "float" in tree:
        return float(tree["float"])
    if "tuple" in tree:
        return tuple(_unpacked(item, tensors) for item in tree["tuple"])
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if "bytes" in tree:
        return _view(tensors[tree["bytes"]], tree)
    pairs = tree["dict"] if "dict" in tree else tree["ordered"]
    made = {_unpacked(key, tensors): _unpacked(item, tensors) for key, item in pairs}
    if "dict" in tree:
        return made
    ordered = OrderedDict(made)
    vars(ordered).update((_unpacked(key, tensors), _unpacked(item, tensors)) for key, item in tree["has"])
    return ordered


def _view(held: Tensor, note: dict[str, Any]) -> Tensor:
    """One of the tensors in some bytes."""
    dtype, shape, stride = getattr(torch, note["dtype"]), note["shape"], note["stride"]
    if not math.prod(shape):
        return held[:0].view(dtype).as_strided(shape, stride)
    whole = held[note["start"] :]
    whole = whole[: len(whole) // dtype.itemsize * dtype.itemsize].view(dtype)
    return whole.as_strided(shape, stride, whole.storage_offset())
