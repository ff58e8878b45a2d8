"""Where JPEGs are decoded: by Pillow on the CPU, or by nvJPEG on the encoder's GPU, through torchvision.

The two give other pixels (docs/stores.md), so a store notes which one it is of.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from residual.data import ImageDataset
from residual.encoders.encoder import Encoder
from residual.encoders.halves import halves_of
from residual.errors import ResidualError
from residual.libraries import first_line
from residual.store.encoding import AUTO, CPU, GPU


def road(
    asked: str,
    encoder: Encoder,
    dataset: ImageDataset,
    stored: str | None = None,
    lacks: str | None = None,
) -> str:
    """Where the JPEGs of a dataset are decoded: "cpu" or "gpu".

    Args:
        asked: one of `DECODE`. "auto" is what a store was begun with, or else "gpu" where that can be had.
        encoder: its device, and what it does to pictures.
        dataset: of files or not.
        stored: what a store that is there already was begun with.
        lacks: what `lacking` says where the encoder is to run, if that is elsewhere.

    Raises:
        ResidualError: "gpu" is asked for and can't be had here, or a store was begun with it; says why.
    """
    wanted = stored if asked == AUTO and stored is not None else asked
    if wanted == CPU:
        return CPU
    why = why_not(encoder, dataset, lacks)
    if wanted == AUTO:
        return CPU if why else GPU
    if why:
        begun = ", as this store was begun" if asked == AUTO else ""
        raise ResidualError(
            f"Pictures can't be decoded on the GPU{begun}: {why}.",
            "Go on where that can be had, or encode to another place."
            if asked == AUTO
            else 'Leave it to decode="auto", or say decode="cpu".',
        )
    return GPU


def why_not(encoder: Encoder, dataset: ImageDataset, lacks: str | None = None) -> str:
    """Why pictures of a dataset can't be decoded where an encoder is; "" where they can. See `road`."""
    if not dataset.of_files:
        return f"{dataset.full_name} isn't made of image files"
    halves = halves_of(encoder.preprocess)
    if halves is None or halves.geometry is None:
        return f"what the preprocessing of {encoder.name} does isn't known step by step"
    return lacking(str(encoder.device)) if lacks is None else lacks


@cache
def lacking(device: str) -> str:
    """What is missing for decoding on a device, seen by a trial; "" where nothing is."""
    if torch.device(device).type != "cuda":
        return f"the encoder runs on the {torch.device(device).type}, and nvJPEG needs CUDA"
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    trial = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    try:
        import torchvision.io
    except Exception as error:
        return f"torchvision isn't there ({first_line(error)})"
    try:
        _decoded([trial], torch.device(device))
    except Exception as error:
        return f"torchvision {torchvision.__version__} has no nvJPEG that works here ({first_line(error)})"
    return ""


def decode_files(data: Tensor, lengths: Sequence[int], device: torch.device) -> list[Tensor | None]:
    """Pictures `(3, h, w)` in bytes of whole JPEGs; None for one that the decoder there refuses.

    Args:
        data: one file after another, uint8 on the CPU.
        lengths: of each, in bytes.
        device: where they are decoded, and are then.
    """
    files = list(data.split(list(lengths)))
    try:
        return list(_decoded(files, device))
    except RuntimeError as error:  # it tells of none which one it was
        if isinstance(error, torch.OutOfMemoryError):
            raise
    return [_one(file, device) for file in files]


def _one(file: Tensor, device: torch.device) -> Tensor | None:
    try:
        return _decoded([file], device)[0]
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return None


def _decoded(files: list[Tensor], device: torch.device) -> list[Tensor]:
    # torchvision's own function warns from 0.29 on that another library is to take its place.
    import torchvision.io

    rgb = torchvision.io.ImageReadMode.RGB.value
    ops: Any = torch.ops.image
    if device.type == "cuda":
        return ops.decode_jpegs_cuda(files, rgb, device)
    return [ops.decode_jpeg(file, rgb, False) for file in files]
