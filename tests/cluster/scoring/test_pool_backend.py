"""What a pool on Ray does when actors and nodes die, and how its files and GPUs get to the nodes."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pycaffe import Pool, Result, WorkerDied
from pycaffe.cluster.connection import Connection
from pycaffe.cluster.scoring import node_files
from pycaffe.cluster.scoring.pool_backend import _cause
from pycaffe.errors import ClusterError, DeviceError, ItemTimeout
from tests.workers import faults
from tests.workers.tiny_net import expected_scores, write_tiny_net

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_tiny_net(tmp_path_factory.mktemp("net"))


def assert_right(net: tuple[str, str], results: list[Result], values: dict[int, float]) -> None:
    """Exactly one result an item, and these are those of data filled with these values."""
    assert len({result.index for result in results}) == len(results)
    by_index = {result.index: result for result in results}
    for index, value in values.items():
        outputs: Any = by_index[index].outputs
        assert outputs is not None, by_index[index].error
        expected = expected_scores(net[1], net[0], faults.filled(value))
        np.testing.assert_allclose(outputs["score"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_killed_actors_and_poison_items_cost_nobody_else(local_ray: Connection, net: tuple[str, str]) -> None:
    items: list[Any] = [("slow", float(index)) for index in range(2000)]
    items[700], items[900] = ("kill",), ("os._exit", 5)
    with Pool(*net, backend="ray", workers=3, batch_size=8, preprocess=faults.act, retries=1) as pool:
        results = []
        for result in pool.imap_unordered(items):
            results.append(result)
            if len(results) in (300, 600, 1200):
                pid = next(worker.pid for worker in pool.stats().workers if worker.pid is not None)
                os.kill(pid, signal.SIGKILL)
        assert sum(worker.restarts for worker in pool.stats().workers) >= 3
    assert len(results) == 2000
    assert_right(net, results, {index: index for index in range(2000) if index not in (700, 900)})
    poisoned = [result for result in results if result.index in (700, 900)]
    assert [(type(result.error), result.attempts) for result in poisoned] == [(WorkerDied, 2)] * 2
    assert "while running this item alone (attempt 2 of 2)" in str(poisoned[0].error)


def test_an_item_that_hangs_costs_itself(local_ray: Connection, net: tuple[str, str]) -> None:
    with Pool(*net, backend="ray", workers=1, batch_size=2, preprocess=faults.act, item_timeout=1.0) as pool:
        results = pool.map([0, 1, ("sleep",), 3])
    assert isinstance(results[2].error, ItemTimeout)
    assert_right(net, results, {0: 0, 1: 1, 3: 3})


def test_gpus_are_the_clusters(local_ray: Connection, net: tuple[str, str]) -> None:
    with pytest.raises(DeviceError, match=r"Device 'cuda:0' is not there: this machine has 0 GPU"):
        Pool(*net, backend="ray", gpus=1)
    with pytest.raises(ClusterError, match=r"No node of the Ray cluster at '.*' has 99 CPU\(s\) for a worker"):
        Pool(*net, backend="ray", threads_per_worker=99)


TWO_NODES = """
import os, sys, threading
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_health_check_period_ms"] = "200"  # how soon a node is known to be gone; 3 s by itself
from ray.cluster_utils import Cluster
from pycaffe import Pool
from tests.workers import faults

model, weights = sys.argv[1:]
head = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)
other = cluster.add_node(num_cpus=2, object_store_memory=100 << 20)
with Pool(model, weights, backend="ray", address=cluster.address, batch_size=8, preprocess=faults.act) as pool:
    assert len(pool.stats().workers) == 3
    results = []
    for result in pool.imap_unordered(("slow", float(i % 50)) for i in range(2000)):
        results.append(result)
        if len(results) == 600:
            busy = sum(worker.items > 0 for worker in pool.stats().workers)
            threading.Thread(target=cluster.remove_node, args=(other, False)).start()
    print(len(results), len({result.index for result in results}), sum(r.error is not None for r in results), busy)
    print([(worker.state, worker.restarts) for worker in pool.stats().workers])
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_node_that_is_removed_in_the_middle_costs_nobody_its_result(net: tuple[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", TWO_NODES, *net], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counts, workers = done.stdout.splitlines()[-2:]
    assert counts == "2000 2000 0 3", done.stderr
    assert workers.count("'starting', 1") == 2, "their successors wait for another node"


@pytest.mark.parametrize(
    ("told", "cause"),
    [
        ("Worker exit detail: Worker exits with an exit code 3.", "exit status 3"),
        ("The actor is dead because it was killed by `ray.kill`.", "SIGKILL"),
        ("The actor died because its node has died. Node Id: 0", "its node"),
        ("Worker exit detail: connection error code 2. End of file.", "a signal or os._exit (Ray does not say which)"),
    ],
)
def test_causes_of_death(told: str, cause: str) -> None:
    assert _cause(told) == cause


class _FarRay:
    """A `ray` on another node than the one that offered the files."""

    class exceptions:
        RayError = RuntimeError

    def __init__(self, store: dict[str, Any], node: str) -> None:
        self.store, self.node = store, node

    def get_runtime_context(self) -> _FarRay:
        return self

    def get_node_id(self) -> str:
        return self.node

    def put(self, value: Any) -> str:
        self.store["ref"] = np.array(value)
        return "ref"

    def get(self, reference: str) -> Any:
        return self.store[reference]


@pytest.fixture
def temporary(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "far"))
    (tmp_path / "far").mkdir()
    yield tmp_path


def test_a_file_is_written_once_on_a_node_that_lacks_it(temporary: pathlib.Path) -> None:
    path, store = temporary / "w.caffemodel", dict[str, Any]()
    path.write_bytes(b"weights" * 1000)
    file = node_files.offer(_FarRay(store, "a"), str(path), travels=True)
    far = _FarRay(store, "b")
    assert node_files.path_here(far, file) == str(path), "the same bytes at the same path, on shared storage perhaps"
    path.write_bytes(b"WEIGHTS" * 1000)
    copy = pathlib.Path(node_files.path_here(far, file))
    assert copy.read_bytes() == b"weights" * 1000
    assert copy.name.endswith("-w.caffemodel")
    store.clear()  # a second worker does not ask for the bytes again
    assert node_files.path_here(far, file) == str(copy)
    copy.write_bytes(b"")
    with pytest.raises(KeyError):
        node_files.path_here(far, file)
    assert sorted(copy.parent.iterdir()) == [copy], "nothing half-written stays"


def test_the_store_brings_a_file_to_a_node_that_lacks_it(local_ray: Connection, temporary: pathlib.Path) -> None:
    path = temporary / "w.caffemodel"
    path.write_bytes(b"weights" * 100_000)
    file = dataclasses.replace(node_files.offer(local_ray.ray, str(path), travels=True), node="another")
    path.unlink()
    copy = pathlib.Path(node_files.path_here(local_ray.ray, file))
    assert copy != path
    assert copy.read_bytes() == b"weights" * 100_000


def test_a_file_that_cannot_be_read_is_left_to_who_loads_it(temporary: pathlib.Path) -> None:
    missing = str(temporary / "none.caffemodel")
    file = node_files.offer(_FarRay({}, "a"), missing, travels=True)
    assert node_files.path_here(_FarRay({}, "b"), file) == missing
