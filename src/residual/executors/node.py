"""A task on a node of a cluster: a worker process there may have done others, also of other runs."""

from __future__ import annotations

import os
from typing import Any

import ray
import torch

from residual.executors.parcels import unpacked
from residual.executors.worker import Outcome, begin, perform

_devices: list[str | None] = []  # the GPUs that this process has begun to use


def node_task(sent: list[Any], key: str, cpus: int, folder: str, given: list[Any]) -> Outcome:
    """Do one task.

    Args:
        sent: the one reference to what the run needs.
        key: of the run.
        cpus: of this worker.
        folder: that paths are relative to, where it is there.
        given: the work and the task, packed.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.cuda.is_initialized() and _devices != [visible]:
        os._exit(0)  # it holds another GPU, and can't let go of it: the task starts anew in another process
    _devices[:] = [visible]
    if folder and os.path.isdir(folder):
        os.chdir(folder)
    begin(cpus)
    work, task = unpacked(given)
    return perform(key, lambda: unpacked(ray.get(sent[0])), work, task)
