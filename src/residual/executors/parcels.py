"""What is sent to several processes once: large tensors and arrays in it go beside the pickle, so that those
who get them in memory that they share need no copy.
"""

from __future__ import annotations

import copyreg
import io
import mmap
import os
import struct
import tempfile
import warnings
from collections import ChainMap
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torch import Tensor

from residual.errors import ResidualError
from residual.libraries import first_line

_ALIGNED = 64  # bytes, as torch wants them
_HEAD = struct.Struct("<Q")


def packed(value: Any, pickler: Any = ForkingPickler) -> list[Any]:
    """A value in bytes: its pickle, and then what of it lies in one piece each.

    Args:
        value: to send.
        pickler: the class that takes it apart.

    Raises:
        ResidualError: it can't be sent, as a lambda can't.
    """
    beside: list[Any] = []
    content = io.BytesIO()
    if pickler is ForkingPickler:
        takes = pickler(content, 5, True, beside.append)
        takes.dispatch_table = ChainMap({Tensor: _sent}, copyreg.dispatch_table)  # torch's own go once only
    else:
        takes = pickler(content, protocol=5, buffer_callback=beside.append)
        takes.dispatch_table = ChainMap({Tensor: _sent}, takes.dispatch_table)
    try:
        takes.dump(value)
    except Exception as error:
        raise ResidualError(
            f"What the work needs can't be sent to another process ({first_line(error)}).",
            "Functions and classes that an encoder or a dataset holds must be those of a module, found there "
            "by their name.",
        ) from error
    return [content.getvalue(), *(_bytes_of(buffer.raw()) for buffer in beside)]


def unpacked(parts: list[Any]) -> Any:
    """What `packed` made, of one's own processes."""
    return ForkingPickler.loads(parts[0], buffers=parts[1:])


class Parcel:
    """A value in memory that other processes of this machine read, and that belongs to no folder: it is gone
    with the last one that has it, however that ends. Who writes to its tensors writes to a copy.

    Raises:
        ResidualError: it can't be sent; or there is no room for it.
    """

    def __init__(self, value: Any):
        parts = packed(value)
        self._folder = None
        if hasattr(os, "memfd_create"):
            self._file: Any = os.fdopen(os.memfd_create("residual"), "wb")
            self.path = f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="residual-")
            self.path = os.path.join(self._folder.name, "parcel")
            self._file = open(self.path, "wb")  # noqa: SIM115 (closed in `close`)
        try:
            sizes = np.array([len(part) for part in parts], np.uint64).tobytes()
            for part in [_HEAD.pack(len(parts)) + sizes, *parts]:
                self._file.write(part)
                self._file.write(bytes(-self._file.tell() % _ALIGNED))
            self._file.flush()
        except OSError as error:
            self.close()
            raise ResidualError(
                f"There is no room for the {sum(map(len, parts)):,} bytes that workers need "
                f"({error.strerror})."
            ) from error

    @staticmethod
    def opened(path: str) -> Any:
        """What is in a parcel of another process of one's own."""
        with open(path, "rb") as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        (count,) = _HEAD.unpack_from(whole)
        parts, start = [], _aligned(_HEAD.size + 8 * count)
        for size in np.frombuffer(whole, np.uint64, count, _HEAD.size).tolist():
            parts.append(whole[start : start + size])
            start = _aligned(start + size)
        return unpacked(parts)

    def close(self) -> None:
        """Give it back, as soon as nobody has it any more."""
        with suppress(OSError):
            self._file.close()
        if self._folder is not None:
            self._folder.cleanup()


def _bytes_of(buffer: memoryview) -> np.ndarray:
    return np.frombuffer(buffer, np.uint8) if buffer.nbytes else np.empty(0, np.uint8)


def _sent(tensor: Tensor) -> tuple[Any, ...]:
    """How a tensor is made again, on the CPU, from bytes that lie where they were sent to."""
    plain = tensor.detach().to("cpu").contiguous()
    flat = plain.reshape(-1).view(torch.uint8).numpy()
    return _tensor_of, (flat, plain.dtype, tuple(plain.shape))


def _tensor_of(flat: np.ndarray, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    if not flat.size:
        return torch.empty(shape, dtype=dtype)
    with warnings.catch_warnings():  # of what a cluster keeps, to which nobody may write
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(flat).view(dtype).view(shape)


def _aligned(place: int) -> int:
    return -(-place // _ALIGNED) * _ALIGNED
