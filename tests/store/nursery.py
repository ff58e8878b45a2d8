"""A process that has everything imported and starts encoders as processes of their own: to be killed.

`python nursery.py` reads one JSON object a line and answers with one line. `{"start": {...}}` forks a process
that encodes as said there, and answers with its number; `{"wait": number}` answers with how it ended, the
negative number of a signal.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import zarr.codecs  # noqa: E402 (so that the processes needn't)
import zarr.storage  # noqa: E402, F401
from store_files import float32_encoder  # noqa: E402
from tiny import TinyImages  # noqa: E402

import residual.store.layout  # noqa: E402
from residual.store.encode import encode_dataset  # noqa: E402

ENCODER = float32_encoder()


class SlowImages(TinyImages):
    """Tiny images that take their time."""

    pause = 0.0

    def load(self, index):
        time.sleep(self.pause)
        return super().load(index)


def encode(
    path: str,
    n: int,
    rows: int,
    pause: float = 0.0,
    kill_at: int = 0,
    call: str = "",
    longest_file: int = 0,
    **how,
) -> None:
    """Encode `n` images into a store; die before call number `kill_at`, or inside of the first large file."""
    residual.store.layout.MOST_ROWS = rows
    dataset = SlowImages(n, broken=(3, n // 2))
    dataset.pause = pause
    if call:
        die_at(call, kill_at)
    if longest_file:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (longest_file, longest_file))
    how = {"part": tuple(how.pop("part", (1, 1))), **how}
    encode_dataset(ENCODER, dataset, path, on_error="skip", batch_size=16, **how)


def die_at(call: str, number: int) -> None:
    """The process kills itself before one of the calls by which a file comes to its place."""
    seen = 0
    real = {name: getattr(os, name) for name in ("fsync", "replace", "mkdir", "unlink")}

    def counted(name):
        def wrapped(*args, **kwargs):
            nonlocal seen
            if call in (name, "any"):
                seen += 1
                if seen == number:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real[name](*args, **kwargs)

        return wrapped

    for name in real:
        setattr(os, name, counted(name))


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
                    encode(**request["start"])
                    code = 0
                finally:
                    sys.stderr.flush()
                    os._exit(code)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
