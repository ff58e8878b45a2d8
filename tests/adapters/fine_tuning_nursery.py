"""Processes that fine-tune, for `kills.Nursery`."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import tuned  # noqa: E402
from kills import SlowImages, die_at, serve  # noqa: E402

from residual.adapters import fine_tune  # noqa: E402
from residual.adapters.fine_tuning import loop, pictures  # noqa: E402

SETTINGS = replace(tuned.FAST, epochs=4, patience=3, micro_batch=12)  # of batches of 16
ENCODER = tuned.encoder(dropout=0.2)


def tune(
    place: str,
    every: float = -1.0,
    pause: float = 0.0,
    in_memory: bool = True,
    call: str = "",
    kill_at: int = 0,
) -> None:
    """Fine-tune; die before the call number `kill_at` of `call`.

    Args:
        place: the folder of the checkpoints.
        every: seconds between checkpoints inside of an epoch; less than 0 for one a batch.
        pause: seconds to read a picture.
        in_memory: or else pictures are read in every epoch.
        call: "replace" or "unlink", by which files come and go, "step" of the training, or "validation".
        kill_at: which.
    """
    loop.SAVE_EVERY = every
    if not in_memory:
        pictures.IN_MEMORY = 0
    if call:
        own = {"step": (loop.Training, "_step"), "validation": (loop.Training, "_validated")}
        die_at(kill_at, own.get(call, (os, call)))
    train, val = SlowImages(64, seed=0), SlowImages(48, seed=1, split="val")
    train.pause = pause
    fine_tune(ENCODER, train, val, tuned.classifier(), SETTINGS, folder=place, device="cpu", workers=0)


if __name__ == "__main__":
    serve(tune)
