"""Processes to be killed: one that has everything imported forks another for each piece of work.

`Nursery` starts a script that ends in `serve(work)`. It writes one JSON object a line and reads one line:
`{"start": {...}}` forks a process that does `work(**...)` and gives its number; `{"wait": number}` gives how
that ended, the negative number of a signal.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tiny import TinyImages


class SlowImages(TinyImages):
    """Tiny images that take their time."""

    pause = 0.0

    def load(self, index):
        time.sleep(self.pause)
        return super().load(index)


class Nursery:
    """Starts processes; what they print of errors is in the file `errors`."""

    def __init__(self, script: Path, errors: Path):
        self.errors, self._log = errors, errors.open("w")
        self._process = subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )

    def start(self, place: Path | str, **how) -> int:
        return self._ask({"start": {"place": str(place), **how}})

    def wait(self, number: int) -> int:
        return self._ask({"wait": number})

    def run(self, place: Path | str, **how) -> int:
        return self.wait(self.start(place, **how))

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(120)  # on a busy machine ending takes long, too
        self._process.stdout.close()
        self._log.close()

    def _ask(self, request) -> int:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self.errors.read_text()
        return int(answer)


def serve(work: Callable[..., object]) -> None:
    """The other side of a `Nursery`."""
    gc.freeze()  # what was imported isn't looked through, and so not copied, in each process
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
                    work(**request["start"])
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stderr.flush()
                    os._exit(code)
        print(answer, flush=True)


def die_at(number: int, *calls: tuple[object, str]) -> None:
    """This process kills itself before the call number `number` of these functions, counted together."""
    seen = 0

    def counted(real):
        def wrapped(*args, **kwargs):
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return wrapped

    for owner, name in calls:
        setattr(owner, name, counted(getattr(owner, name)))
