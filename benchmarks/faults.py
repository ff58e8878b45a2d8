"""Workers and nodes of a Ray cluster killed at random moments: nothing is lost, and nothing is different.

    python benchmarks/faults.py --out benchmarks/results/faults.json --worker-kills 100 --node-kills 20

Starts a cluster of a head and two nodes on 127.0.0.1, and encodes stores and runs small experiments on it
again and again, each time into a new place, while SIGKILL ends worker processes in the middle of tasks, and
nodes (raylet and workers; another node comes in its place), until there were so many. Every file of every
store and result is compared with that of one process that nothing disturbed; of experiment 4 the tables
without their column of seconds.

A kill counts where it hit a process that was at a task. Of a job that ends before its kills have come, the
next one gets them. `called again` counts the jobs that had to be: a task that died thirty times gives up.
"""

from __future__ import annotations

import os

os.environ |= {
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # 127.0.0.1 stays that, and isn't taken for the machine's name
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")

import argparse
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import ray
from common import parser_of, run_sections
from PIL import Image
from ray.cluster_utils import Cluster

import residual
from residual.errors import WorkerDiedError
from residual.executors import ClusterExecutor, Executor
from residual.experiments import EXPERIMENTS, Plan, run_experiment
from residual.experiments.adapters import AdaptersSettings

NODE = {"node_ip_address": "127.0.0.1", "include_dashboard": False, "object_store_memory": 80 * 2**20}
ROWS = 16  # of a shard: many of a task
AWAKE = {  # milliseconds after which a node that is silent is taken for dead
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 4,
}


def main() -> None:
    parser = parser_of(__doc__, {"faults": faults})
    parser.add_argument("--worker-kills", type=int, default=100)
    parser.add_argument("--node-kills", type=int, default=20)
    parser.add_argument("--of-a-job", type=int, default=8, help="kills of workers, at most")
    parser.add_argument("--images", type=int, default=384, help="of a store")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    run_sections(options, {"faults": faults}, options)


def faults(options: argparse.Namespace) -> dict[str, Any]:
    start, chance = time.perf_counter(), random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="residual-faults-") as place:
        folder = Path(place)
        data = f"folder:{pictures_of(folder / 'pictures', options.images)}"
        jobs = {"encode": encoded, "experiment 2": similarity, "experiment 4": adapters}
        wanted, took = {}, {}
        for name, job in jobs.items():
            began = time.perf_counter()
            job(data, folder / name, None)
            took[name] = time.perf_counter() - began
            wanted[name] = contents(folder / name)
        nodes = Nodes()
        counts: Counter[str] = Counter()
        different: list[str] = []
        try:
            executor = ClusterExecutor(nodes.cluster.address)
            executor.workers()
            while counts["workers"] < options.worker_kills or counts["nodes"] < options.node_kills:
                name = chance.choice(list(jobs))
                left = options.worker_kills - counts["workers"]
                planned = ["workers"] * min(left, chance.randint(1, options.of_a_job))
                planned += ["nodes"] * min(options.node_kills - counts["nodes"], chance.randint(1, 2))
                chance.shuffle(planned)
                shutil.rmtree(out := folder / "now", ignore_errors=True)
                job = partial(until_done, partial(jobs[name], data, out, executor))
                again, done = disturbed(job, nodes, planned, 0.5 * took[name], chance)
                counts["called again"] += again
                counts.update(done)
                counts[f"jobs: {name}"] += 1
                found = contents(out)
                different += [f"{name}: {each}" for each in differing(wanted[name], found)]
                counts["files compared"] += len(found)
                counts["bytes compared"] += sum(map(len, found.values()))
                passed = time.perf_counter() - start
                print(f"{passed:6.0f} s  {dict(counts)}  {len(different)} differ", flush=True)
        finally:
            nodes.close()
    return {
        "kills": {"workers": counts["workers"], "nodes": counts["nodes"]},
        "jobs": {name: counts[f"jobs: {name}"] for name in jobs},
        "called again": counts["called again"],
        "compared": {"files": counts["files compared"], "bytes": counts["bytes compared"]},
        "different": different,
        "undisturbed seconds": {name: round(seconds, 1) for name, seconds in took.items()},
        "seconds": round(time.perf_counter() - start, 1),
    }


def encoded(data: str, out: Path, executor: Executor | None) -> None:
    """A store of all pictures."""
    encoder = residual.load_encoder("picto", device="cpu")
    dataset = residual.load_dataset(data, "train")
    with mock.patch("residual.store.layout.MOST_ROWS", ROWS):  # workers go by the manifest
        residual.encode_dataset(encoder, dataset, out / "store", batch_size=8, executor=executor)


def similarity(data: str, out: Path, executor: Executor | None) -> None:
    """Experiment 2: a cell of two halves, and one of two datasets."""
    _experiment("2", None, (data, "textures"), out, executor)


def adapters(data: str, out: Path, executor: Executor | None) -> None:
    """Experiment 4: three cells, with outputs that are kept."""
    settings = AdaptersSettings(("zero_shot", "linear", "coarse"), seeds=1, epochs=2)
    _experiment("4", settings, ("textures", data), out, executor)


def _experiment(
    number: str, settings: Any, datasets: tuple[str, str], out: Path, executor: Executor | None
) -> None:
    kind = EXPERIMENTS[number]
    reference, other = datasets
    device = "cpu" if executor is None else None
    plan = Plan(out, ("picto",), (other,), reference, limit=96, batch_size=8, device=device)
    experiment = kind(settings or kind.settings_of())
    experiment.figures = lambda _: ()
    told = run_experiment(experiment, plan, lambda *_: None, executor=executor)
    assert not told["failed"], told["failed"]


def until_done(job: Callable[[], None]) -> int:
    """Do a job, again if a task gave up; gives how often that was."""
    for again in range(20):
        with suppress(WorkerDiedError):
            job()
            return again
    raise RuntimeError("A job was given up by twenty calls.")


def pictures_of(folder: Path, count: int) -> Path:
    """Noise in two classes."""
    draw = np.random.default_rng(0)
    for number in range(count * 5 // 3):  # of which three fifths are train
        place = folder / "ab"[number % 2] / f"{number:05d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (64, 64, 3), np.uint8)).save(place)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its name; of tables with seconds all but these."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".parquet" and "seconds" in (table := pd.read_parquet(path)):
                data = table.drop(columns="seconds").to_csv(index=False, float_format="%r").encode()
            found[path.relative_to(folder).as_posix()] = data
    return found


def differing(wanted: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    """Names of files that are others, missing or more."""
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


class Nodes:
    """The cluster: a head that runs no task, and two nodes that run one each."""

    def __init__(self):
        head = {**NODE, "num_cpus": 0, "_system_config": AWAKE}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self._one() for _ in range(2)]

    def _one(self) -> Any:
        return self.cluster.add_node(wait=False, num_cpus=1, **NODE)

    def at_tasks(self) -> list[int]:
        """Processes of ours that are at a task."""
        return [each for node in self.nodes for each in children(raylet_of(node)) if is_at_task(each)]

    def kill_worker(self, chance: random.Random) -> bool:
        """One that is at a task, if any is."""
        if not (found := self.at_tasks()):
            return False
        with suppress(ProcessLookupError):
            os.kill(chance.choice(found), signal.SIGKILL)
            return True
        return False

    def kill_node(self, chance: random.Random) -> bool:
        """A node of which a worker is at a task: all of its processes; another comes."""
        busy = [node for node in self.nodes if any(map(is_at_task, children(raylet_of(node))))]
        if not busy:
            return False
        node = chance.choice(busy)
        raylet = raylet_of(node)
        for each in (raylet, *children(raylet)):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self._one())
        return True

    def close(self) -> None:
        """End all of it."""
        ray.shutdown()
        self.cluster.shutdown()


def disturbed(
    job: Callable[[], int], nodes: Nodes, planned: list[str], within: float, chance: random.Random
) -> tuple[int, Counter[str]]:
    """Do a job while kills come at random moments; gives what it gave, and how many came.

    Args:
        job: is done in a thread, since nodes can be started in the main one only.
        nodes: where.
        planned: "workers" or "nodes", one after another.
        within: seconds, in which all are to have come.
        chance: draws the moments.
    """
    done: Counter[str] = Counter()
    with ThreadPoolExecutor(1) as aside:
        work = aside.submit(job)
        for what in planned:
            kill = nodes.kill_worker if what == "workers" else nodes.kill_node
            pause = chance.uniform(0, 2 * within / len(planned))
            while not wait([work], pause).done:
                if kill(chance):
                    done[what] += 1
                    break
                pause = 0.02  # nobody is at a task just now
        return work.result(), done


def raylet_of(node: Any) -> int:
    """The process that is a node."""
    return node.all_processes["raylet"][0].process.pid


def children(process: int) -> list[int]:
    """What a process has started and what that has, as far as it is there."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
    found = [process]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def is_at_task(process: int) -> bool:
    """Whether it is a worker of Ray in the middle of a task, as its title says."""
    with suppress(OSError):
        title = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0]
        return title == b"ray::task"  # as the executor's function is called; others are Ray's own
    return False


if __name__ == "__main__":
    main()
