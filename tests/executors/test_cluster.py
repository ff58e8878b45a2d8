"""A real Ray cluster, of a head and two nodes on this machine, whose workers and nodes are really killed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Timer

import pytest
import torch
from store_files import files_of, same_encoder, same_files, small_shards
from tiny import TinyImages
from watched_images import DeadlySimilarity, WatchedImages, rest

from residual.errors import ResidualError, UnreadableImageError
from residual.executors import ClusterExecutor
from residual.experiments import Plan, run_experiment
from residual.experiments.similarity import Similarity
from residual.spectral.fit import fit_bases
from residual.store.disk import ResidualStore
from residual.store.encode import encode_dataset

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are killed as they are on Linux"),
    pytest.mark.timeout(300),
]
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # as a ClusterExecutor does before it imports ray
SHARDS = 16
NODE = {"node_ip_address": "127.0.0.1", "include_dashboard": False, "object_store_memory": 80 * 2**20}
AWAKE = {  # milliseconds after which a node that is silent is taken for dead
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 4,
}


@pytest.fixture(scope="module")
def cluster():
    """A head that runs no task, and two nodes that run one each."""
    pytest.importorskip("ray", reason="the extra ray isn't installed")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_raylet_start_wait_time_s", "180")
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patched.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patched.setenv("PYTHONPATH", os.pathsep.join(each for each in sys.path if each))
        patched.delenv("RAY_ADDRESS", raising=False)
        from ray._private import ray_constants
        from ray.cluster_utils import Cluster

        patched.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)  # 127.0.0.1 stays that
        made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "_system_config": AWAKE})
        try:
            for _ in range(2):
                made.add_node(wait=False, num_cpus=1, **NODE)
            made.wait_for_nodes(timeout=180)
            yield made
        finally:
            import ray

            ray.shutdown()
            made.shutdown()


@pytest.fixture(scope="module")
def executor(cluster):
    made = ClusterExecutor(cluster.address)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    small_shards(monkeypatch)


def wait_for(seen: Callable[[], object], encoding: Future[ResidualStore]) -> None:
    until = time.monotonic() + 200
    while not seen():
        assert time.monotonic() < until
        assert not encoding.done()
        time.sleep(0.05)


def parent_of(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_worker_and_a_node_are_killed_in_mid_task(cluster, executor, tmp_path):
    """Each worker has a task; of one the node is killed with it."""
    dataset, store = WatchedImages(8 * SHARDS, tmp_path, pause=0.05), tmp_path / "elsewhere"

    def receipts() -> int:
        return len(list((store / "receipts").glob("*.json")))

    def at_work() -> list[int]:
        return [int(each.stem) for each in tmp_path.glob("*.pid")]

    with ThreadPoolExecutor(1) as aside:  # nodes can be started in the main thread only
        encoding = aside.submit(
            encode_dataset, same_encoder(), dataset, store, batch_size=4, executor=executor
        )
        wait_for(lambda: receipts() >= 2 and len(at_work()) == 2, encoding)
        raylets = {node.all_processes["raylet"][0].process.pid: node for node in cluster.worker_nodes}
        alone, worker = at_work()
        raylet = parent_of(worker)
        for process in (alone, worker, raylet):
            os.kill(process, signal.SIGKILL)
        assert receipts() < SHARDS
        cluster.remove_node(raylets[raylet], allow_graceful=False)
        cluster.add_node(wait=False, num_cpus=1, **NODE)
        assert encoding.result(timeout=200).complete
        assert receipts() == SHARDS
    encode_dataset(same_encoder(), dataset, tmp_path / "plain", batch_size=4)
    same_files(files_of(store), files_of(tmp_path / "plain"))


def test_a_worker_is_killed_in_the_middle_of_an_experiment(executor, tmp_path, monkeypatch):
    monkeypatch.undo()  # workers cut the shards
    monkeypatch.setattr("residual.experiments.running.save_figure", lambda *_: [])
    told = []
    for kind, place, where in ((Similarity, "plain", None), (DeadlySimilarity, "elsewhere", executor)):
        over = {"datasets": ("flags",), "reference": "digits", "limit": 24}
        plan = Plan(tmp_path / place, ("picto",), **over, device=None if where else "cpu")
        told.append(run_experiment(kind(kind.settings_of()), plan, lambda *_: None, executor=where))
    one, many = ([{**cell, "seconds": 0} for cell in each.pop("cells")] for each in told)
    assert (many, told[1]) == (one, told[0])
    assert (tmp_path / "killed").exists()
    same_files(files_of(tmp_path / "elsewhere"), files_of(tmp_path / "plain"))


def test_bases_of_a_store_and_an_error_as_it_was(executor, tmp_path):
    store = encode_dataset(same_encoder(), TinyImages(60), tmp_path / "store", batch_size=4)
    got, expected = fit_bases(store, executor=executor), fit_bases(store)
    for one, other in zip(got.eigenvalues, expected.eigenvalues, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    broken = TinyImages(60, broken=(50,))
    with pytest.raises(UnreadableImageError, match="tiny/50") as caught:
        encode_dataset(same_encoder(), broken, tmp_path / "broken", batch_size=4, executor=executor)
    assert caught.value.sample_id == "tiny/50"


def test_what_no_node_has_is_refused(executor, cluster):
    with pytest.raises(ResidualError, match=r"No node of the Ray cluster at .* \(64 CPU\)"):
        ClusterExecutor(cluster.address, cpus=64).workers()


def test_ctrl_c_while_it_waits_is_one(executor):
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        interrupted(executor)


def interrupted(executor: ClusterExecutor) -> None:
    Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
    list(executor.run(dict, rest, [60.0]))
