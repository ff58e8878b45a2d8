"""A process that has everything imported and starts trainings as processes of their own: to be killed.

`python training_nursery.py` reads one JSON object a line and answers with one line, as `store/nursery.py`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import tuned  # noqa: E402
from tiny import TinyImages  # noqa: E402

from residual.adapters import fine_tune  # noqa: E402
from residual.adapters.training import data, loop  # noqa: E402

SETTINGS = replace(tuned.FAST, epochs=4, patience=3)
ENCODER = tuned.encoder(dropout=0.2)


class SlowImages(TinyImages):
    """Tiny images that take their time."""

    pause = 0.0

    def load(self, index):
        time.sleep(self.pause)
        return super().load(index)


def tune(
    folder: str,
    every: float = -1.0,
    pause: float = 0.0,
    in_memory: bool = True,
    call: str = "",
    kill_at: int = 0,
) -> None:
    """Fine-tune; die before the call number `kill_at` of `call`.

    Args:
        folder: of the checkpoints.
        every: seconds between checkpoints inside of an epoch; less than 0 for one a batch.
        pause: seconds to read a picture.
        in_memory: or else pictures are read in every epoch.
        call: "replace" or "unlink", by which files come and go, "step" of the training, or "validation".
        kill_at: which.
    """
    loop.SAVE_EVERY = every
    if not in_memory:
        data.IN_MEMORY = 0
    if call:
        owner, name = {
            "step": (loop._Training, "_logits"),
            "validation": (loop._Training, "_validated"),
        }.get(call, (os, call))
        die_at(owner, name, kill_at)
    train, val = SlowImages(64, seed=0), SlowImages(48, seed=1, split="val")
    train.pause = pause
    fine_tune(ENCODER, train, val, tuned.classifier(), SETTINGS, folder=folder, device="cpu", workers=0)


def die_at(owner: object, name: str, number: int) -> None:
    seen, real = 0, getattr(owner, name)

    def counted(*args, **kwargs):
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, counted)


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if not answer:
                code = 1
                try:
                    tune(**request["start"])
                    code = 0
                finally:
                    sys.stderr.flush()
                    os._exit(code)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
