"""Executors by their name, and workers of this machine: real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

import residual.errors
from residual.errors import ResidualError, UnderstoodWarning, UnreadableImageError
from residual.executors import Executor, ProcessExecutor, executor_of
from residual.executors.cluster import last_started_here
from residual.executors.parcels import Parcel


class Numbers:
    """A context: a tensor and an array that workers share."""

    def __init__(self, n: int):
        self.tensor, self.array = torch.arange(float(n)), np.arange(n)

    def __call__(self) -> Numbers:
        self.made_in = os.getpid()
        return self


def looked_at(numbers: Numbers, place: int) -> tuple[int, bool, float, int, str]:
    with open("/proc/self/maps", encoding="ascii") as maps:
        shared = any("memfd:residual" in line for line in maps)
    same = numbers.tensor.data_ptr() % 64 == 0 and numbers.made_in == os.getpid()
    numbers.tensor[0] = place  # of its own: the others don't see it
    value = float(numbers.tensor[place]) + int(numbers.array[place])
    return os.getpid(), shared and same, value, torch.get_num_threads(), os.environ["CUDA_VISIBLE_DEVICES"]


def troubled(_: Numbers, task: str) -> str:
    if task == "picture":
        raise UnreadableImageError("a/b.jpg", "it is cut off")
    if task == "warning":
        warnings.warn("taken so", UnderstoodWarning, stacklevel=1)
    return task


def test_tasks_come_back_with_their_number_and_share_what_is_large(processes):
    ticks: list[int] = []
    results = dict(processes.run(Numbers(100_000), looked_at, [3, 1, 2], tick=lambda: ticks.append(1)))
    assert {number: result[2] for number, result in results.items()} == {0: 6.0, 1: 2.0, 2: 4.0}
    assert all(result[1] for result in results.values())
    assert {result[3:] for result in results.values()} == {(1, "")}
    assert os.getpid() not in {result[0] for result in results.values()}
    assert ticks
    assert isinstance(processes, Executor)


def test_a_script_without_a_guard_is_told_of_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from residual.executors import executor_of\n"
        "print(list(executor_of('processes:1').run(dict, print, [1])))\n",
        encoding="utf-8",
    )
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert ran.returncode
    assert '`if __name__ == "__main__":`' in ran.stderr.splitlines()[-1]


def test_what_cannot_be_sent_is_refused(processes):
    with pytest.raises(ResidualError, match=r"can't be sent to another process .*lambda"):
        list(processes.run(lambda: None, troubled, ["fine"]))


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("gpu", "Work can run on gpus, gpus:NUMBER"),
        ("processes", "Work can run on"),
        ("processes:0", "1 to 256 workers"),
        ("processes:2,cpus=1", "Work can run on"),
        ("ray,cores=2", "Behind ray there can be cpus=…, gpus=…"),
        ("ray,cpus=0", "cpus of a worker must be above 0"),
        ("ray://", "Work can run on"),
    ],
)
def test_what_is_none_is_refused(where, why):
    with pytest.raises(ResidualError, match=why):
        executor_of(where)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_gpus_says_so():
    with pytest.raises(ResidualError, match="no GPU that torch sees"):
        executor_of("gpus")


def test_executors_by_name():
    assert isinstance(executor_of("processes:3"), ProcessExecutor)
    cluster = executor_of("ray://head:10001,cpus=4,gpus=0.5,memory=16,workers=8,accelerator=H100")
    assert cluster.address == "ray://head:10001"
    assert (cluster.cpus, cluster.gpus, cluster.memory) == (4, 0.5, 16)
    assert (cluster.wanted, cluster.accelerator) == (8, "H100")
    assert executor_of("ray:head:6379").address == "head:6379"
    assert executor_of(cluster) is cluster


@pytest.fixture
def free_port():
    """Where nothing answers; until the socket listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        yield found


@pytest.mark.parametrize("where", ["ray:127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_a_cluster_that_does_not_answer_is_named_at_once(free_port, where):
    pytest.importorskip("ray", reason="the extra ray isn't installed")
    with pytest.raises(ResidualError, match=r"no Ray cluster at .*127.0.0.1:[0-9]+ \(nothing answers there"):
        executor_of(where.format(free_port.getsockname()[1])).workers()


def test_what_is_left_of_a_cluster_that_ended_is_passed_over(free_port, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra ray isn't installed")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert last_started_here() == "local"
    address = f"127.0.0.1:{free_port.getsockname()[1]}"
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address, encoding="utf-8")
    assert last_started_here() == "local"
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    free_port.listen()
    assert last_started_here() == address


def examples_of(kind: type) -> Exception:
    for count in range(4):
        try:
            return kind(*["some text"] * count)
        except TypeError:
            continue
    raise AssertionError(f"{kind} takes no texts")


@pytest.mark.parametrize(
    "kind",
    [
        each
        for each in vars(residual.errors).values()
        if isinstance(each, type) and issubclass(each, ResidualError | Warning)
    ],
)
def test_every_error_survives_the_way_from_a_worker(kind):
    error = examples_of(kind)
    parcel = Parcel(error)
    there = Parcel.opened(parcel.path)
    parcel.close()
    assert (type(there), str(there), vars(there)) == (kind, str(error), vars(error))


def test_an_error_and_a_warning_come_out_as_they_were(processes):
    """The last that works there: an error ends the processes."""
    with pytest.warns(UnderstoodWarning, match="taken so"):
        assert sorted(processes.run(Numbers(1), troubled, ["warning"] * 2)) == [
            (0, "warning"),
            (1, "warning"),
        ]
    with pytest.raises(UnreadableImageError, match="cut off") as caught:
        list(processes.run(Numbers(1), troubled, ["picture", "fine"]))
    assert (caught.value.sample_id, caught.value.reason) == ("a/b.jpg", "it is cut off")
