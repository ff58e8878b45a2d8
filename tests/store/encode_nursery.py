"""Processes that encode, for `kills.Nursery`."""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import zarr.codecs  # noqa: E402 (so that the processes needn't)
import zarr.storage  # noqa: E402, F401
from kills import SlowImages, die_at, serve  # noqa: E402
from store_files import float32_encoder  # noqa: E402

import residual.spectral.fit  # noqa: E402
import residual.store.layout  # noqa: E402
from residual.spectral.fit import stream_moments  # noqa: E402
from residual.store.encode import encode_dataset  # noqa: E402
from residual.store.forward import Encoding  # noqa: E402

ENCODER = float32_encoder()
CALLS = ("fsync", "replace", "mkdir", "unlink")  # by which a file comes to its place


def encode(
    place: str,
    n: int,
    rows: int,
    pause: float = 0.0,
    kill_at: int = 0,
    call: str = "",
    longest_file: int = 0,
    bases: bool = False,
    **how,
) -> None:
    """Encode `n` images into a store, or fit bases alone; die before call number `kill_at`, or inside of the
    first large file.
    """
    residual.store.layout.MOST_ROWS = rows
    dataset = SlowImages(n, broken=(3, n // 2))
    dataset.pause = pause
    if call:
        die_at(kill_at, *((os, name) for name in CALLS if call in (name, "any")))
    if longest_file:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (longest_file, longest_file))
    if bases:
        residual.spectral.fit.SECONDS_BETWEEN = -1  # a checkpoint a batch
        settings = Encoding(kinds=("mlp", "head"), batch_size=16, on_error="skip")
        moments = stream_moments(ENCODER, dataset, settings, checkpoint=f"{place}.unfinished")
        moments.compute().save(place)
        return
    how = {"part": tuple(how.pop("part", (1, 1))), **how}
    encode_dataset(ENCODER, dataset, place, on_error="skip", batch_size=16, **how)


if __name__ == "__main__":
    serve(encode)
